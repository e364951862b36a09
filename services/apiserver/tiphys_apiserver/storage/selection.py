"""Which objects a list or a watch is about, and how to find them without looking at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tiphys_apimachinery.errors import BadRequest
from tiphys_apimachinery.fields import FieldSelector
from tiphys_apimachinery.labels import Operator, Selector
from tiphys_apiserver.storage.objects import CachedObject, ObjectFormat

# What an index is asked for: a label pair (key, value), a field (its path, value), an owner's uid.
Pin = tuple[str, str, str]
LABEL = "label"
FIELD = "field"
OWNER = "owner"
# Fields that every kind can be selected by.
PLACE_FIELDS = frozenset({"metadata.name", "metadata.namespace"})


@dataclass(frozen=True, slots=True)
class Selection:
    """What a caller chose; an empty namespace is all of them. ``owner_uid`` is for code, the API has no such option."""

    namespace: str = ""
    labels: Selector = field(default_factory=Selector)
    fields: FieldSelector = field(default_factory=FieldSelector)
    owner_uid: str = ""

    def outline(self) -> Selection:
        """What of it holds of an object in whichever version: webhooks convert labels and fields, but not its place."""
        fields = tuple(term for term in self.fields.requirements if term.field in PLACE_FIELDS)
        return Selection(self.namespace, fields=FieldSelector(fields), owner_uid=self.owner_uid)


class Matcher:
    """A selection made ready for one resource."""

    __slots__ = ("matches", "matches_inside", "namespace", "pins", "selection")

    def __init__(self, selection: Selection, object_format: ObjectFormat) -> None:
        self.selection = selection
        # metadata.namespace=x means the same as the path of that namespace.
        self.namespace = selection.namespace or selection.fields.exact("metadata.namespace") or ""
        # Every object chosen has all of these; any one of them is enough to look in.
        self.pins: tuple[Pin, ...] = tuple(_pins(selection))
        tests = _tests(selection, object_format)
        # None where everything matches, so that the common case costs nothing.
        self.matches: Callable[[CachedObject], bool] | None = _all_of(tests)
        # The same for objects that are known to be in the selection's namespace.
        self.matches_inside = _all_of(tests[1:]) if selection.namespace else self.matches

    @property
    def exact_name(self) -> str:
        """The one name that may match, empty if several may."""
        return self.selection.fields.exact("metadata.name") or ""

    @property
    def is_everything(self) -> bool:
        """Whether no object is left out."""
        return self.matches is None


def _pins(selection: Selection) -> list[Pin]:
    pins: list[Pin] = []
    if selection.owner_uid:
        pins.append((OWNER, "", selection.owner_uid))
    for term in selection.fields.requirements:
        if term.equal and not term.field.startswith("metadata."):
            pins.append((FIELD, term.field, term.value))
    for requirement in selection.labels.requirements:
        if requirement.operator in (Operator.EQUALS, Operator.IN) and len(requirement.values) == 1:
            pins.append((LABEL, requirement.key, requirement.values[0]))
    return pins


def _tests(selection: Selection, object_format: ObjectFormat) -> list[Callable[[CachedObject], bool]]:
    """What an object must pass; the namespace comes first."""
    tests: list[Callable[[CachedObject], bool]] = []
    if selection.namespace:
        namespace = selection.namespace
        tests.append(lambda cached: cached.namespace == namespace)
    for term in selection.fields.requirements:
        position = object_format.field_positions.get(term.field)
        if position is None:
            raise BadRequest(f"field label not supported: {term.field}")
        tests.append(_field_test(position, term.value, term.equal))
    if selection.labels:
        labels = selection.labels
        tests.append(lambda cached: labels.matches(cached.labels))
    if selection.owner_uid:
        owner = selection.owner_uid
        tests.append(lambda cached: owner in cached.owner_uids)
    return tests


def _field_test(position: int, value: str, equal: bool) -> Callable[[CachedObject], bool]:
    if equal:
        return lambda cached: cached.field(position) == value
    return lambda cached: cached.field(position) != value


def _all_of(tests: list[Callable[[CachedObject], bool]]) -> Callable[[CachedObject], bool] | None:
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    return lambda cached: all(test(cached) for test in tests)
