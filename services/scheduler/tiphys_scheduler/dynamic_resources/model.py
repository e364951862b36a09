"""Slices, devices and claims as values, read once from each version of an object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from tiphys.api.core.v1.scheduling_pb2 import NodeSelector
from tiphys.api.resource.v1.resource_pb2 import Device as DeviceMessage
from tiphys.api.resource.v1.resource_pb2 import DeviceTaint, DeviceToleration, ResourceClaim, ResourceSlice
from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.quantity import Quantity
from tiphys_apimachinery.resource_claims import qualified
from tiphys_scheduler.dynamic_resources.selectors import Domains, semver

Qualified = tuple[str, str]
# Set and counter of a pool.
CounterKey = tuple[str, str]


class DeviceId(NamedTuple):
    """Which device it is, in the whole cluster."""

    driver: str
    pool: str
    device: str


class PoolId(NamedTuple):
    """Which pool it is."""

    driver: str
    pool: str


@dataclass(frozen=True, slots=True)
class Reach:
    """From which nodes something can be used: one, those of a selector (serialized), or all."""

    node: str = ""
    selector: bytes = b""
    everywhere: bool = False


@dataclass(frozen=True, eq=False)
class Device:
    """One device. consumes are amounts of the pool's counters that it takes while it is given."""

    id: DeviceId
    reach: Reach
    attributes: Mapping[Qualified, Any] = field(default_factory=dict)
    capacity: Mapping[Qualified, Quantity] = field(default_factory=dict)
    consumes: Mapping[CounterKey, Quantity] = field(default_factory=dict)
    taints: tuple[DeviceTaint, ...] = ()
    binds_to_node: bool = False
    # What this scheduler does not do yet: to be bound under conditions, to be shared. Such a device is given to nobody,
    # or to one claim at a time.
    has_conditions: bool = False

    @cached_property
    def variable(self) -> dict[str, Any]:
        """`device` as selectors see it."""
        return {
            "driver": self.id.driver,
            "attributes": _domains(self.attributes),
            "capacity": _domains(self.capacity),
            "allowMultipleAllocations": False,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """A ResourceSlice: devices of a pool in one of its generations, of which a whole one has `count` slices."""

    name: str
    pool: PoolId
    generation: int
    count: int
    devices: tuple[Device, ...]
    counters: Mapping[CounterKey, Quantity]


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The newest generation of a pool. fault says why none of its devices may be given now."""

    id: PoolId
    devices: tuple[Device, ...]
    counters: Mapping[CounterKey, Quantity]
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to meet a request; its name is REQUEST or REQUEST/CHOICE. selectors are those of the request alone."""

    name: str
    device_class: str
    selectors: tuple[str, ...] = ()
    takes_all: bool = False
    count: int = 1
    is_admin: bool = False
    tolerations: tuple[bytes, ...] = ()
    capacity: tuple[tuple[str, Quantity], ...] = ()


@dataclass(frozen=True, slots=True)
class Constraint:
    """What must hold between the devices of some requests, all where none is named."""

    requests: tuple[str, ...]
    attribute: str
    is_distinct: bool = False


@dataclass(frozen=True, slots=True)
class Wish:
    """What an unallocated claim asks for: of each request one choice, the earlier the better."""

    claim: str
    requests: tuple[tuple[Choice, ...], ...]
    constraints: tuple[Constraint, ...] = ()


@dataclass(frozen=True, slots=True)
class Given:
    """A device that a choice gets."""

    choice: Choice
    device: Device


def slice_view(item: ResourceSlice) -> Slice:
    """A slice as published."""
    spec = item.spec
    pool = PoolId(spec.driver, spec.pool.name)
    reach = None if spec.perDeviceNodeSelection else _reach(spec)
    return Slice(
        name=item.metadata.name,
        pool=pool,
        generation=spec.pool.generation,
        count=spec.pool.resourceSliceCount,
        devices=tuple(_device(pool, device, reach) for device in spec.devices),
        counters={
            (group.name, name): Quantity.parse(counter.value.string)
            for group in spec.sharedCounters
            for name, counter in group.counters.items()
        },
    )


def pools_of(slices: Iterable[Slice]) -> list[Pool]:
    """The pools that slices make up, in the order of driver and name; slices of older generations count nothing."""
    by_pool: dict[PoolId, list[Slice]] = {}
    for item in slices:
        by_pool.setdefault(item.pool, []).append(item)
    found = []
    for pool, members in sorted(by_pool.items()):
        newest = max(item.generation for item in members)
        current = sorted((item for item in members if item.generation == newest), key=lambda item: item.name)
        devices = tuple(device for item in current for device in item.devices)
        counters = {key: amount for item in current for key, amount in item.counters.items()}
        found.append(Pool(pool, devices, counters, _fault(current, devices)))
    return found


def _fault(slices: list[Slice], devices: tuple[Device, ...]) -> str:
    if len(slices) < slices[0].count:
        return "is currently being updated"
    if len({device.id for device in devices}) < len(devices):
        return "names a device twice"
    return ""


def wish_of(claim: ResourceClaim, key: str) -> Wish:
    """What a claim asks for."""
    devices = claim.spec.devices
    return Wish(
        key,
        tuple(tuple(_choices(request)) for request in devices.requests),
        tuple(
            Constraint(
                tuple(item.requests),
                item.matchAttribute or item.distinctAttribute,
                is_distinct=not item.matchAttribute,
            )
            for item in devices.constraints
        ),
    )


def given_devices(claim: ResourceClaim) -> Iterator[DeviceId]:
    """The devices that a claim has for itself: those for watching over them are no one's."""
    for result in claim.status.allocation.devices.results:
        if not result.adminAccess:
            yield DeviceId(result.driver, result.pool, result.device)


def is_tolerated(taint: DeviceTaint, tolerations: Iterable[bytes]) -> bool:
    """Whether one of the tolerations puts up with a taint. Source: k8s.io/api resource/v1, DeviceToleration."""
    for raw in tolerations:
        item = DeviceToleration.FromString(raw)
        same_value = item.operator == "Exists" or item.value == taint.value
        if item.key in ("", taint.key) and same_value and item.effect in ("", taint.effect):
            return True
    return False


def _choices(request: Any) -> Iterator[Choice]:
    if request.HasField("exactly"):
        yield _choice(request.name, request.exactly, is_admin=request.exactly.adminAccess)
        return
    for choice in request.firstAvailable:
        yield _choice(f"{request.name}/{choice.name}", choice, is_admin=False)


def _choice(name: str, item: Any, *, is_admin: bool) -> Choice:
    return Choice(
        name,
        item.deviceClassName,
        tuple(selector.cel.expression for selector in item.selectors),
        takes_all=item.allocationMode == "All",
        count=item.count or 1,
        is_admin=is_admin,
        tolerations=tuple(one.SerializeToString(deterministic=True) for one in item.tolerations),
        capacity=tuple(sorted((name, Quantity.parse(q.string)) for name, q in item.capacity.requests.items())),
    )


def _device(pool: PoolId, item: DeviceMessage, reach: Reach | None) -> Device:
    return Device(
        id=DeviceId(*pool, item.name),
        reach=reach or _reach(item),
        attributes={qualified(name, pool.driver): _value(value) for name, value in item.attributes.items()},
        capacity={
            qualified(name, pool.driver): Quantity.parse(value.value.string) for name, value in item.capacity.items()
        },
        consumes={
            (one.counterSet, name): Quantity.parse(counter.value.string)
            for one in item.consumesCounters
            for name, counter in one.counters.items()
        },
        taints=tuple(item.taints),
        binds_to_node=item.bindsToNode,
        has_conditions=len(item.bindingConditions) > 0,
    )


def _reach(item: Any) -> Reach:
    """Of a slice, or of a device that says so for itself."""
    if item.nodeName:
        return Reach(node=item.nodeName)
    if item.HasField("nodeSelector"):
        selector: NodeSelector = item.nodeSelector
        return Reach(selector=selector.SerializeToString(deterministic=True))
    return Reach(everywhere=item.allNodes)


def _value(item: Any) -> Any:
    """An attribute as selectors see it; a version that is none equals nothing."""
    if item.HasField("int"):
        return item.int
    if item.HasField("bool"):
        return item.bool
    if item.HasField("version"):
        try:
            return semver(item.version)
        except CelError:
            return None
    return item.string


def _domains(values: Mapping[Qualified, Any]) -> Domains:
    found = Domains()
    for (domain, name), value in values.items():
        found.setdefault(domain, {})[name] = value
    return found
