"""Storage classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.formats import is_qualified_name
from tiphys_apiserver.registry.strategy import Strategy, WriteContext

# Source: kubernetes pkg/apis/storage/validation, maxProvisionerParameterLen and maxProvisionerParameterSize.
_MOST_PARAMETERS = 512
_MOST_BYTES = 256 * 1024
# Fields that upstream refuses to change in words of their own.
_FIXED = ("parameters", "provisioner", "reclaimPolicy")


class StorageClassStrategy(Strategy):
    """The rules of storage classes."""

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of the provisioner's name, the parameters and the topologies."""
        return super().validate(ctx, obj) + list(_faults(obj))

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same; what volumes are made by and how stays."""
        before = [error for error in super().validate_update(ctx, new, old) if error.path not in _FIXED]
        changed = [name for name in _FIXED if getattr(new, name) != getattr(old, name)]
        fixed = [FieldError.forbidden(name, f"updates to {name} are forbidden.") for name in changed]
        return [*before, *_faults(new), *fixed]


def _faults(item: Any) -> Iterator[FieldError]:
    if item.provisioner:
        for why in is_qualified_name(item.provisioner.lower()):
            yield FieldError.invalid("provisioner", item.provisioner, why)
    if len(item.parameters) > _MOST_PARAMETERS:
        yield FieldError.too_long("Provisioner Parameters exceeded max allowed", _MOST_PARAMETERS)
    if any(not key for key in item.parameters):
        yield FieldError.invalid("parameters", "", "field can not be empty.")
    if sum(len(key) + len(value) for key, value in item.parameters.items()) > _MOST_BYTES:
        yield FieldError.too_long("parameters", _MOST_BYTES)
    for number, term in enumerate(item.allowedTopologies):
        keys: set[str] = set()
        for position, entry in enumerate(term.matchLabelExpressions):
            where = f"allowedTopologies[{number}].matchLabelExpressions[{position}]"
            if entry.key in keys:
                yield FieldError.duplicate(f"{where}.key", entry.key)
            keys.add(entry.key)
            for index, value in enumerate(entry.values):
                if value in entry.values[:index]:
                    yield FieldError.duplicate(f"{where}.values[{index}]", value)
