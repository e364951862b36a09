"""Which container gets which devices. Pure: takes what is there and who holds what, and says what to give.

Invariant: a device is held by the containers of one pod only, and of these by at most one that is not a plain init
container. Plain init containers end before the others begin, so what they held is handed on.
Source: the documented behaviour of the kubelet's device manager, with its messages.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.quantity import Quantity
from tiphys_kubelet.pod_spec import ContainerKind, kind_of_init


class Refused(Exception):
    """The devices can't be had, and waiting does not help: the pod must fail."""


class NotYet(Exception):
    """The plugin has not registered again since the kubelet started; it is expected to."""


class Slot(NamedTuple):
    """A container of a pod and a resource: what devices are held by."""

    pod_uid: str
    container: str
    resource: str


@dataclass(frozen=True, slots=True)
class DeviceState:
    """One device as its plugin tells it. An empty tuple of NUMA nodes means that it is near to none."""

    id: str
    healthy: bool
    numa_nodes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Stock:
    """All devices of a resource.

    `connected` says that its plugin is there; without it no device is healthy. `expected` says that it was registered
    before the kubelet started, and has not come back yet.
    """

    devices: Mapping[str, DeviceState] = field(default_factory=dict)
    connected: bool = False
    expected: bool = False

    @property
    def healthy(self) -> frozenset[str]:
        """Ids of the devices that may be given."""
        return frozenset(d.id for d in self.devices.values() if d.healthy) if self.connected else frozenset()


@dataclass(frozen=True, slots=True)
class Holding:
    """Devices of a slot, and what the plugin answered: a ContainerAllocateResponse as bytes."""

    devices: tuple[str, ...]
    grant: bytes = b""


Stocks = Mapping[str, Stock]
Holdings = Mapping[Slot, Holding]


@dataclass(frozen=True, slots=True)
class Demand:
    """What one container asks of one resource. `lasting` is false for plain init containers."""

    container: str
    resource: str
    count: int
    lasting: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """What may be given: `size` of `available`, among them all of `must_include`."""

    available: tuple[str, ...]
    must_include: tuple[str, ...]
    size: int


def is_extended(name: str) -> bool:
    """The resource is one that plugins or administrators made up, as example.com/gpu."""
    return "/" in name and not name.split("/", 1)[0].endswith("kubernetes.io")


def demands(pod: Pod) -> Iterator[Demand]:
    """What the pod's containers ask for, in the order in which they are given it."""
    for container in pod.spec.initContainers:
        lasting = kind_of_init(container) is ContainerKind.SIDECAR
        yield from (Demand(container.name, r, n, lasting) for r, n in _amounts(container.resources.limits))
    for container in pod.spec.containers:
        yield from (Demand(container.name, r, n, True) for r, n in _amounts(container.resources.limits))


def _amounts(limits: Mapping[str, object]) -> Iterator[tuple[str, int]]:
    for name in sorted(limits):
        text = getattr(limits[name], "string", "")
        if is_extended(name) and text and (count := Quantity.parse(text).value()) > 0:
            yield name, count


def is_managed(resource: str, stocks: Stocks, holdings: Holdings) -> bool:
    """A plugin offers the resource or has offered it; any other was made up by an administrator, who counts it only."""
    return resource in stocks or any(slot.resource == resource for slot in holdings)


def choose(demand: Demand, pod: Pod, stocks: Stocks, holdings: Holdings) -> Choice | None:
    """What the container may be given; None if it holds it already.

    Raises Refused if it can't be had, and NotYet while the plugin is expected back.
    """
    slot = Slot(pod.metadata.uid, demand.container, demand.resource)
    held = holdings.get(slot)
    if held is not None:
        if len(held.devices) != demand.count:
            raise Refused(
                f'pod "{slot.pod_uid}" container "{slot.container}" changed request for resource "{slot.resource}" '
                f"from {len(held.devices)} to {demand.count}"
            )
        return None
    stock = stocks.get(demand.resource)
    if stock is None:
        raise Refused(f"cannot allocate unregistered device {demand.resource}")
    if stock.expected:
        raise NotYet(f"the device plugin of {demand.resource} has not registered since the kubelet started")
    healthy = stock.healthy
    if not healthy:
        raise Refused(f"no healthy devices present; cannot allocate unhealthy devices {demand.resource}")
    handed_on = reusable(slot, pod, holdings) & healthy
    free = healthy - in_use(demand.resource, holdings)
    must_include = tuple(sorted(handed_on))[: demand.count]
    if len(free) + len(must_include) < demand.count:
        raise Refused(
            f"requested number of devices unavailable for {demand.resource}. Requested: {demand.count}, "
            f"Available: {len(free) + len(must_include)}"
        )
    return Choice(tuple(sorted(free | set(must_include))), must_include, demand.count)


def pick(choice: Choice, preferred: Iterable[str] = ()) -> tuple[str, ...]:
    """The devices to give: those handed on, then those that the plugin prefers, then the first."""
    wanted = [*choice.must_include, *(d for d in preferred if d in choice.available), *choice.available]
    return tuple(dict.fromkeys(wanted))[: choice.size]


def in_use(resource: str, holdings: Holdings) -> frozenset[str]:
    """Devices that some container holds."""
    return frozenset(d for slot, held in holdings.items() if slot.resource == resource for d in held.devices)


def reusable(slot: Slot, pod: Pod, holdings: Holdings) -> frozenset[str]:
    """Devices that plain init containers of the pod hold, and none of its lasting containers."""
    passing = {c.name for c in pod.spec.initContainers if kind_of_init(c) is not ContainerKind.SIDECAR}
    own = [(s, h) for s, h in holdings.items() if s.pod_uid == slot.pod_uid and s.resource == slot.resource]
    lasting = {device for s, h in own if s.container not in passing for device in h.devices}
    return frozenset(device for s, h in own if s.container in passing for device in h.devices) - lasting


def without_pods(holdings: Holdings, uids: Collection[str]) -> dict[Slot, Holding]:
    """What is held when these pods have given back theirs."""
    return {slot: held for slot, held in holdings.items() if slot.pod_uid not in uids}


def counts(stocks: Stocks) -> dict[str, tuple[int, int]]:
    """Capacity and allocatable of each resource."""
    return {name: (len(stock.devices), len(stock.healthy)) for name, stock in stocks.items()}


def merge_devices(told: Sequence[DeviceState]) -> tuple[dict[str, DeviceState], tuple[str, ...]]:
    """The devices by id, and the ids told more than once; such a one is healthy only if it always was."""
    devices: dict[str, DeviceState] = {}
    twice: list[str] = []
    for device in told:
        earlier = devices.get(device.id)
        if earlier is not None:
            twice.append(device.id)
            device = DeviceState(device.id, earlier.healthy and device.healthy, earlier.numa_nodes)
        devices[device.id] = device
    return devices, tuple(dict.fromkeys(twice))
