"""The kinds that definitions of custom resources have made, as classes for the client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tiphys_apimachinery.dynamic import DynamicKind, DynamicObject, Unchecked, new_class
from tiphys_apimachinery.meta import is_condition_true

KIND_INDEX: Final = "kind"


def definition_kind_keys(definition: Any) -> Iterable[str]:
    """Index function of definitions: kind and group of what they define."""
    return (kind_key(definition.spec.group, definition.status.acceptedNames.kind),)


def kind_key(group: str, kind: str) -> str:
    """The index key of a kind."""
    return f"{kind}.{group}"


def class_of(definition: Any) -> type[DynamicObject] | None:
    """The class of a definition's objects, in the version that they are stored in where that is served; None if none.

    None too while its names are not accepted.
    """
    spec = definition.spec
    if not is_condition_true(definition.status.conditions, "Established"):
        return None
    served = sorted((version for version in spec.versions if version.served), key=lambda version: not version.storage)
    if not served:
        return None
    names = definition.status.acceptedNames
    version = served[0]
    return new_class(
        DynamicKind(
            spec.group,
            version.name,
            names.kind,
            Unchecked(),
            version.subresources.HasField("status"),
            names.plural,
            spec.scope == "Namespaced",
        )
    )


def namespaced(definitions: Iterable[Any]) -> list[type[DynamicObject]]:
    """The classes of those whose objects are in namespaces."""
    found = [class_of(definition) for definition in definitions]
    return [cls for cls in found if cls is not None and cls.KIND.namespaced]
