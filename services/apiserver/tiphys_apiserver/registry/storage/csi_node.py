"""What CSI drivers say of a node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.formats import is_dns1123_subdomain, is_qualified_name
from tiphys_apiserver.registry.strategy import Strategy, WriteContext

# Source: kubernetes pkg/apis/storage/validation, csiNodeIDMaxLength.
_LONGEST_ID = 192
_LONGEST_DRIVER = 63


class CSINodeStrategy(Strategy):
    """The rules of CSINodes: each driver once, and none changes while it is there."""

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of the drivers."""
        return super().validate(ctx, obj) + list(_faults(obj))

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same; of a driver that stays only the number of volumes may change."""
        errors = super().validate_update(ctx, new, old) + list(_faults(new))
        before = {driver.name: _identity(driver) for driver in old.spec.drivers}
        for number, driver in enumerate(new.spec.drivers):
            if driver.name in before and before[driver.name] != _identity(driver):
                errors.append(FieldError.invalid(f"spec.drivers[{number}]", driver.name, "field is immutable"))
        return errors


class CSIDriverStrategy(Strategy):
    """The rules of CSIDrivers."""

    def validate_name(self, name: str) -> list[str]:
        """A driver's name is a short subdomain."""
        return driver_name_faults(name)


def driver_name_faults(name: str) -> list[str]:
    """What is wrong with a driver's name, in words."""
    too_long = [f"must be no more than {_LONGEST_DRIVER} characters"] if len(name) > _LONGEST_DRIVER else []
    return too_long + is_dns1123_subdomain(name.lower())


def _identity(driver: Any) -> tuple[str, tuple[str, ...]]:
    return driver.nodeID, tuple(driver.topologyKeys)


def _faults(item: Any) -> Iterator[FieldError]:
    names: set[str] = set()
    for number, driver in enumerate(item.spec.drivers):
        where = f"spec.drivers[{number}]"
        if driver.name in names:
            yield FieldError.duplicate(f"{where}.name", driver.name)
        names.add(driver.name)
        if driver.name:
            for why in driver_name_faults(driver.name):
                yield FieldError.invalid(f"{where}.name", driver.name, why)
        if len(driver.nodeID) > _LONGEST_ID:
            yield FieldError.invalid(f"{where}.nodeID", driver.nodeID, f"must be {_LONGEST_ID} characters or less")
        for index, key in enumerate(driver.topologyKeys):
            if not key:
                yield FieldError.required(f"{where}.topologyKeys[{index}]")
            elif key in driver.topologyKeys[:index]:
                yield FieldError.duplicate(f"{where}.topologyKeys[{index}]", key)
            else:
                for why in is_qualified_name(key):
                    yield FieldError.invalid(f"{where}.topologyKeys[{index}]", key, why)
