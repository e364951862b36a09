"""The rules of custom objects: their schema's, and what holds for all of them.

Source: apiextensions pkg/registry/customresource/strategy.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tiphys_apimachinery.errors import FieldError, Invalid, MethodNotAllowed
from tiphys_apiserver.crd import json_path
from tiphys_apiserver.crd.info import CustomInfo
from tiphys_apiserver.registry.strategy import Environment, Strategy, WriteContext
from tiphys_apiserver.registry.warnings import finalizer_warnings

# Names of fields, and the steps to each.
FieldPaths = Mapping[str, tuple[Any, ...]]


class CustomStrategy(Strategy):
    """The rules of one custom resource in its stored version. is_ending: the definition is being deleted."""

    allow_unconditional_update = False
    may_take_long = True
    default_propagation = None

    def __init__(
        self, resource: CustomInfo, environment: Environment, is_ending: Callable[[], bool], fields: FieldPaths
    ) -> None:
        """fields are those that objects are selected by, in whichever version, with the steps to each."""
        super().__init__(resource, environment)
        self._paths = fields
        self._schema = resource.schema
        self._is_ending = is_ending
        self.warnings = finalizer_warnings

    def selectable_fields(self, obj: Any) -> Mapping[str, str]:
        """The fields that the definition names."""
        found = {}
        for name, path in self._paths.items():
            value = json_path.first(path, obj.content)
            found[name] = "" if value is None else value if isinstance(value, str) else _text(value)
        return found

    def apply_defaults(self, obj: Any) -> None:
        """Fill what the caller left open."""
        self._schema.fill(obj.content)

    def prepare_for_create(self, ctx: WriteContext, obj: Any) -> None:
        """Drop the status where it has a door of its own."""
        if self._is_ending():
            raise MethodNotAllowed("create not allowed while custom resource definition is terminating")
        if self.has_status:
            obj.ClearField("status")

    def validate(self, ctx: WriteContext, obj: Any) -> list[FieldError]:
        """What the schema and its rules say."""
        return self._schema.check(obj)

    def prepare_for_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """Keep the status where it has a door of its own."""
        if self.has_status:
            _keep(new, old, "status")

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """What the schema and its rules say; faults that were there before and were not touched are let be."""
        faults = self._schema.check(new, old)
        if not faults:
            return []
        before = {(fault.path, fault.body) for fault in self._schema.check(old)}
        return [
            fault
            for fault in faults
            if (fault.path, fault.body) not in before or _at(new, fault.path) != _at(old, fault.path)
        ]

    def prepare_for_status_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """Keep all but the status; of metadata, what the server itself writes may change."""
        status = new.content.get("status")
        managed = list(new.metadata.managedFields)
        kept = type(new)()
        kept.CopyFrom(old)
        new.CopyFrom(kept)
        if status is None:
            new.content.pop("status", None)
        else:
            new.content["status"] = status
        del new.metadata.managedFields[:]
        new.metadata.managedFields.extend(managed)

    def validate_status_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same as of any update."""
        return self.validate_update(ctx, new, old)


def accept(obj: Any, info: CustomInfo) -> None:
    """Bring an object that was sent in a version that is not stored to that version's schema. Raises Invalid.

    What is being deleted is let be: it could never lose its finalizers otherwise.
    """
    info.schema.fill(obj.content)
    faults = info.schema.check(obj) if not obj.metadata.HasField("deletionTimestamp") else []
    if faults:
        raise Invalid.of(info.kind, obj.metadata.name, faults, group=info.group)


def _keep(new: Any, old: Any, name: str) -> None:
    if name in old.content:
        new.content[name] = old.content[name]
    else:
        new.content.pop(name, None)


def _at(obj: Any, path: str) -> Any:
    """The value that a fault is about; the whole object where the path is not simple."""
    try:
        steps = json_path.parse(f".{path}")
    except json_path.BadPath:
        return obj.content
    return json_path.first(steps, obj.content)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
