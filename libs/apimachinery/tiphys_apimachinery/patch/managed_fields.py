"""Who owns which fields: metadata.managedFields, and what apply and update do to it.

Pure, over objects in JSON. An entry stands for one manager, operation, version and subresource; its time is when its
set last changed. Source of the rules: apimachinery pkg/util/managedfields and structured-merge-diff merge/update.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from tiphys_apimachinery.errors import BadRequest, Conflict, StatusCause, StatusDetails
from tiphys_apimachinery.field_error import quote
from tiphys_apimachinery.patch import field_set
from tiphys_apimachinery.patch.apply import Comparison, compare, fields_of, merge, without
from tiphys_apimachinery.patch.field_set import EMPTY, FieldSet, Path
from tiphys_apimachinery.patch.typed import Shape

APPLY: Final = "Apply"
UPDATE: Final = "Update"
# Owner of everything that was there before an object was first applied.
BEFORE_FIRST_APPLY: Final = "before-first-apply"
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_KUBECTL: Final = "kubectl"
_ANCIENT: Final = "ancient-changes"
# More updaters than this are folded into one. Source: managedfields/fieldmanager.go, DefaultMaxUpdateManagers.
_MAX_UPDATERS: Final = 10
# What the server sets, or what says which object this is. Source: managedfields/internal/stripmeta.go.
_NOBODYS: Final = frozenset(
    {("f:apiVersion",), ("f:kind",), ("f:metadata",)}
    | {
        ("f:metadata", f"f:{name}")
        for name in (
            "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation",
            "managedFields", "resourceVersion",
        )
    }
)  # fmt: skip

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes: the manager, through which version and subresource, and when (RFC 3339, UTC).

    ignores says of a path that this door does not write it, such as the status through the object itself.
    """

    manager: str
    operation: str
    api_version: str
    now: str
    subresource: str = ""
    ignores: Callable[[Path], bool] = lambda path: False


@dataclass(frozen=True, slots=True)
class Entry:
    """What one manager owns."""

    manager: str
    operation: str
    api_version: str
    subresource: str
    time: str = field(compare=False, default="")
    fields: FieldSet = EMPTY

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells entries apart."""
        return self.manager, self.operation, self.api_version, self.subresource

    def to_json(self) -> JSON:
        """As metadata.managedFields has it."""
        found: JSON = {"manager": self.manager, "operation": self.operation, "apiVersion": self.api_version}
        if self.time:
            found["time"] = self.time
        found |= {"fieldsType": "FieldsV1", "fieldsV1": field_set.encode(self.fields)}
        return found | ({"subresource": self.subresource} if self.subresource else {})


def decode(items: Iterable[Mapping[str, Any]]) -> tuple[Entry, ...]:
    """The entries of metadata.managedFields. Raises BadRequest naming the entry for what is none."""
    found = []
    for index, item in enumerate(items):
        operation = item.get("operation", "")
        if operation not in (APPLY, UPDATE):
            raise BadRequest(f"metadata.managedFields[{index}].operation: {operation!r} is neither Apply nor Update")
        try:
            fields = field_set.decode(item.get("fieldsV1") or {})
        except ValueError as err:
            raise BadRequest(f"metadata.managedFields[{index}]: {err}") from err
        found.append(
            Entry(
                manager=item.get("manager", ""),
                operation=operation,
                api_version=item.get("apiVersion", ""),
                subresource=item.get("subresource", ""),
                time=item.get("time") or "",
                fields=fields,
            )
        )
    return tuple(found)


def applied(live: JSON | None, config: JSON, shape: Shape, writer: Writer, *, force: bool) -> JSON:
    """The object that applying a configuration makes of the live one (None: there is none), managedFields included.

    Raises Conflict naming managers and fields where others own what would change and force is not given, BadRequest
    for a configuration that contradicts itself.
    """
    base: JSON = live if live is not None else {}
    entries = _entries(base)
    if live is not None and not entries:
        entries = (_first_owner(base, shape, writer),)
    try:
        return _applied(base, config, shape, writer, entries=entries, force=force)
    except Conflicts as err:
        allowed = _own_by_annotation(base, shape) if writer.manager == _KUBECTL else EMPTY
        left = {entry: paths - allowed for entry, paths in err.by_entry.items() if paths - allowed}
        if left or not allowed:
            raise conflict(left or err.by_entry) from err
        return _applied(base, config, shape, writer, entries=entries, force=True)


class Conflicts(Exception):
    """Others own what an apply would change."""

    def __init__(self, by_entry: Mapping[Entry, FieldSet]) -> None:
        super().__init__("conflicts")
        self.by_entry = by_entry


def _applied(
    live: JSON, config: JSON, shape: Shape, writer: Writer, *, entries: tuple[Entry, ...], force: bool
) -> JSON:
    wanted = _owned(fields_of(config, shape), writer)
    mine = next((entry for entry in entries if entry.key == _key(writer)), None)
    others = tuple(entry for entry in entries if entry.key != _key(writer))
    merged = merge(live, config, shape)
    let_go = (mine.fields - wanted) if mine is not None else EMPTY
    if let_go:
        owned = wanted.union(*(entry.fields for entry in others))
        merged = without(merged, shape, let_go, owned)
    changes = compare(live, merged, shape)
    touched = changes.added | changes.modified
    conflicts = {entry: entry.fields & touched for entry in others if entry.fields & touched}
    if conflicts and not force:
        raise Conflicts(conflicts)
    left = _after(others, changes, writer, taken=touched)
    if mine is None or mine.fields != wanted:
        mine = _entry(writer, wanted)
    result = dict(merged)
    if live.get("metadata", {}).get("annotations", {}).get(LAST_APPLIED) and writer.manager == _KUBECTL:
        result = _with_annotation(result, config)
    return _with_entries(result, (*left, mine))


def updated(old: JSON | None, new: JSON, shape: Shape, writer: Writer) -> list[JSON]:
    """metadata.managedFields after an ordinary write, which owns whatever it adds or changes.

    Entries that the client sends count instead of the stored ones; a single empty one takes all away.
    """
    sent = new.get("metadata", {}).get("managedFields")
    if sent == [{}]:
        return []
    before: JSON = old if old is not None else {}
    entries = decode(sent) if sent else _entries(before)
    changes = compare(before, new, shape)
    touched = _owned(changes.added | changes.modified, writer)
    mine = next((entry for entry in entries if entry.key == _key(writer)), None)
    others = tuple(entry for entry in entries if entry.key != _key(writer))
    left = _after(others, changes, writer, taken=touched)
    fields = ((mine.fields if mine is not None else EMPTY) | touched) - changes.removed
    if mine is None or mine.fields != fields:
        mine = _entry(writer, fields)
    return [entry.to_json() for entry in _in_order(_capped((*left, mine)))]


def _after(others: tuple[Entry, ...], changes: Comparison, writer: Writer, *, taken: FieldSet) -> tuple[Entry, ...]:
    """What others still own; an entry that loses fields gets the time of the write."""
    found = []
    for entry in others:
        # What is applied stays shared where the values agree: only what differs was taken.
        fields = entry.fields - (taken & (changes.added | changes.modified)) - changes.removed
        found.append(entry if fields == entry.fields else replace(entry, fields=fields, time=writer.now))
    return tuple(found)


def _entries(obj: JSON) -> tuple[Entry, ...]:
    return decode(obj.get("metadata", {}).get("managedFields") or ())


def _key(writer: Writer) -> tuple[str, str, str, str]:
    return writer.manager, writer.operation, writer.api_version, writer.subresource


def _entry(writer: Writer, fields: FieldSet) -> Entry:
    return Entry(writer.manager, writer.operation, writer.api_version, writer.subresource, writer.now, fields)


def _first_owner(live: JSON, shape: Shape, writer: Writer) -> Entry:
    fields = compare({}, live, shape).added - _NOBODYS
    return Entry(BEFORE_FIRST_APPLY, UPDATE, writer.api_version, "", writer.now, fields)


def _owned(fields: FieldSet, writer: Writer) -> FieldSet:
    return frozenset(path for path in fields if path not in _NOBODYS and not writer.ignores(path))


def _capped(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Fold the oldest updaters into one where there are too many."""
    updaters = sorted((e for e in entries if e.operation == UPDATE and not e.subresource), key=lambda e: e.time)
    surplus = updaters[: max(0, len(updaters) - _MAX_UPDATERS + 1)] if len(updaters) > _MAX_UPDATERS else []
    if not surplus:
        return entries
    fields = EMPTY.union(*(entry.fields for entry in surplus))
    ancient = replace(surplus[-1], manager=_ANCIENT, fields=fields)
    gone = {entry.key for entry in surplus}
    return (*(entry for entry in entries if entry.key not in gone), ancient)


def _in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Apply before Update, then by time and name; who owns nothing is left out."""
    return sorted(
        (entry for entry in entries if entry.fields),
        key=lambda entry: (entry.operation, entry.time, entry.manager, entry.api_version, entry.subresource),
    )


def _with_entries(obj: JSON, entries: Iterable[Entry]) -> JSON:
    metadata = dict(obj.get("metadata") or {})
    metadata["managedFields"] = [entry.to_json() for entry in _in_order(entries)]
    return obj | {"metadata": metadata}


def _with_annotation(obj: JSON, config: JSON) -> JSON:
    """Keep kubectl's annotation true, so that applying on the client's side still works afterwards."""
    metadata = dict(obj["metadata"])
    text = orjson.dumps(config).decode() + "\n"
    metadata["annotations"] = metadata.get("annotations", {}) | {LAST_APPLIED: text}
    return obj | {"metadata": metadata}


def _own_by_annotation(live: JSON, shape: Shape) -> FieldSet:
    """Fields that kubectl itself applied on the client's side and nobody changed since: no conflict with itself."""
    text = live.get("metadata", {}).get("annotations", {}).get(LAST_APPLIED, "")
    if not text:
        return EMPTY
    try:
        last = orjson.loads(text)
    except orjson.JSONDecodeError:
        # The annotation is the user's to break: then it excuses nothing.
        return EMPTY
    return fields_of(last, shape) - compare(live, merge(live, last, shape), shape).modified


def conflict(by_entry: Mapping[Entry, FieldSet]) -> Conflict:
    """The refusal that names each manager with the fields it owns."""
    count = sum(len(paths) for paths in by_entry.values())
    lines, causes = [], []
    for entry, paths in sorted(by_entry.items(), key=lambda item: _shown(item[0])):
        names = sorted(field_set.shown(path) for path in paths)
        who = _shown(entry)
        lines.append(
            f"conflict with {who}: {names[0]}"
            if len(names) == 1
            else f"conflicts with {who}:\n" + "\n".join(f"- {name}" for name in names)
        )
        causes += [StatusCause("FieldManagerConflict", f"conflict with {who}", name) for name in names]
    text = "conflict" if count == 1 else "conflicts"
    message = f"Apply failed with {count} {text}: " + "\n".join(lines)
    return Conflict(message, details=StatusDetails(causes=tuple(causes)))


def _shown(entry: Entry) -> str:
    text = quote(entry.manager)
    if entry.subresource:
        text += f" with subresource {quote(entry.subresource)}"
    if entry.operation == UPDATE:
        text += f" using {entry.api_version}" + (f" at {entry.time}" if entry.time else "")
    return text
