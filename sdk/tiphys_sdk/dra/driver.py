"""What the author of a DRA driver writes, and the values that it is written in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from tiphys.api.resource.v1.resource_pb2 import CounterSet, Device, ResourceClaim

Attribute = str | int | bool


@dataclass(frozen=True, slots=True)
class Version:
    """An attribute that is a semantic version."""

    text: str


@dataclass(frozen=True, slots=True)
class DevicePool:
    """Devices of this node that are published together; more than 128 are spread over several slices."""

    name: str
    devices: Sequence[Device]
    counters: Sequence[CounterSet] = ()


@dataclass(frozen=True, slots=True)
class ClaimRef:
    """Names a claim, which may be gone from the API by now."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Given:
    """A device of this driver that a claim was given."""

    request: str
    pool: str
    device: str
    is_admin: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A device that is ready. cdi_ids are written VENDOR/CLASS=NAME."""

    given: Given
    cdi_ids: Sequence[str] = field(default=())


class Refusal(Exception):
    """A claim can't be prepared or given up; the message goes to the pod's events, and it is tried again."""


class DraDriver(ABC):
    """Devices of one driver on one node. Calls for a claim may be repeated: after a restart, or a lost answer."""

    name: str
    """The driver's name, as gpu.vendor.example."""

    @abstractmethod
    def pools(self) -> AsyncIterator[Sequence[DevicePool]]:
        """All pools now, and again all of them at each change, for ever. It is asked for once."""

    @abstractmethod
    async def prepare(self, claim: ResourceClaim, given: Sequence[Given]) -> Sequence[Prepared]:
        """Makes the devices ready that the claim was given, each time with the same answer. Raises Refusal."""

    @abstractmethod
    async def unprepare(self, claim: ClaimRef) -> None:
        """Undoes prepare; nothing where nothing is prepared. Raises Refusal."""


def make_device(
    name: str, attributes: Mapping[str, Attribute | Version] | None = None, capacity: Mapping[str, str] | None = None
) -> Device:
    """A device with plain facts; capacities are quantities such as 16Gi."""
    device = Device(name=name)
    for key, value in (attributes or {}).items():
        target = device.attributes[key]
        if isinstance(value, Version):
            target.version = value.text
        elif isinstance(value, bool):
            target.bool = value
        elif isinstance(value, int):
            target.int = value
        else:
            target.string = value
    for key, amount in (capacity or {}).items():
        device.capacity[key].value.string = amount
    return device


def devices_for(claim: ResourceClaim, driver: str) -> list[Given]:
    """What of a claim's devices is this driver's."""
    return [
        Given(one.request, one.pool, one.device, one.adminAccess)
        for one in claim.status.allocation.devices.results
        if one.driver == driver
    ]
