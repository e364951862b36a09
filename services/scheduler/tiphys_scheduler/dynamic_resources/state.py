"""What the scheduler knows of devices: slices, classes and claims, and what it has promised meanwhile.

Watches show a write late. So devices that were chosen for a claim count as taken from the moment of the choice until
the claim shows them, or the binding has failed; and a claim that we wrote is known as we wrote it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from tiphys.api.resource.v1.resource_pb2 import AllocationResult, DeviceClass, ResourceClaim, ResourceSlice
from tiphys_apimachinery.meta import get_controller_of, is_being_deleted, join_key, resource_version
from tiphys_apimachinery.quantity import Quantity
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_component.clock import Clock
from tiphys_scheduler.dynamic_resources.allocator import Facts
from tiphys_scheduler.dynamic_resources.model import (
    CounterKey,
    Device,
    DeviceId,
    Pool,
    PoolId,
    Slice,
    Wish,
    given_devices,
    pools_of,
    slice_view,
    wish_of,
)

_MOST_KNOWN: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class ClaimView:
    """A claim. nodes is the selector of where its devices can be used, serialized; empty for everywhere."""

    key: str
    uid: str
    version: int
    pod_uid: str
    is_deleting: bool
    is_allocated: bool
    devices: tuple[DeviceId, ...]
    nodes: bytes
    reserved_for: tuple[str, ...]
    wish: Wish


@dataclass(frozen=True, slots=True)
class Promise:
    """What a pod on its way was promised for a claim."""

    pod_uid: str
    claim_uid: str
    allocation: AllocationResult
    devices: tuple[DeviceId, ...]


@dataclass(frozen=True, slots=True)
class DeviceInformers:
    """Informers of the three kinds; the caller runs them."""

    claims: Informer[ResourceClaim, ClaimView]
    slices: Informer[ResourceSlice, Slice]
    classes: Informer[DeviceClass, object]

    def all(self) -> tuple[Informer[Any, Any], ...]:
        """All three."""
        return (self.claims, self.slices, self.classes)


def device_informers(client: Client, clock: Clock, rng: Random | None = None) -> DeviceInformers:
    """Informers of this process."""
    return DeviceInformers(
        Informer(client, ResourceClaim, clock=clock, projection=claim_view, rng=rng),
        Informer(client, ResourceSlice, clock=clock, projection=slice_view, rng=rng),
        Informer(client, DeviceClass, clock=clock, rng=rng),
    )


def claim_view(claim: ResourceClaim) -> ClaimView:
    """The view of a claim."""
    key, status = join_key(claim.metadata.namespace, claim.metadata.name), claim.status
    owner = get_controller_of(claim)
    selector = status.allocation.nodeSelector if status.allocation.HasField("nodeSelector") else None
    return ClaimView(
        key=key,
        uid=claim.metadata.uid,
        version=resource_version(claim),
        pod_uid=owner.uid if owner is not None and owner.kind == "Pod" else "",
        is_deleting=is_being_deleted(claim),
        is_allocated=status.HasField("allocation"),
        devices=tuple(given_devices(claim)),
        nodes=selector.SerializeToString(deterministic=True) if selector is not None else b"",
        reserved_for=tuple(user.uid for user in status.reservedFor),
        wish=wish_of(claim, key),
    )


class Devices:
    """Owned by the scheduler's loop. `version` rises with every change that may change an answer."""

    def __init__(self) -> None:
        self.version = 0
        self.claims: dict[str, ClaimView] = {}
        self.classes: dict[str, DeviceClass] = {}
        self._slices: dict[str, Slice] = {}
        self._promises: dict[str, Promise] = {}
        self._selectors: dict[str, tuple[str, ...]] = {}
        # Made of the slices when they are asked for.
        self._pools: list[Pool] | None = None
        self._by_id: dict[DeviceId, Device] = {}
        self._known: dict[tuple[DeviceId, str], bool] = {}
        self._facts: Facts | None = None

    def set_claim(self, key: str, view: ClaimView | None) -> bool:
        """A claim as the API says, None when it is gone; False for what is older than what is known."""
        old = self.claims.get(key)
        if view is None:
            self.claims.pop(key, None)
        elif old is not None and old.uid == view.uid and old.version > view.version:
            return False
        else:
            self.claims[key] = view
        self._changed()
        return True

    def set_slice(self, name: str, view: Slice | None) -> None:
        """A slice as published, None when it is gone."""
        self._slices.pop(name, None)
        if view is not None:
            self._slices[name] = view
        self._pools = None
        self._known.clear()
        self._changed()

    def set_class(self, name: str, item: DeviceClass | None) -> None:
        """A class, None when it is gone."""
        self.classes.pop(name, None)
        self._selectors.pop(name, None)
        if item is not None:
            self.classes[name] = item
            self._selectors[name] = tuple(selector.cel.expression for selector in item.spec.selectors)
        self._changed()

    def promise(self, claim: str, promise: Promise) -> None:
        """Hold what was chosen for a claim."""
        self._promises[claim] = promise
        self._changed()

    def promised(self, claim: str) -> Promise | None:
        """What some pod on its way was promised for the claim."""
        return self._promises.get(claim)

    def forget(self, claim: str, pod_uid: str) -> bool:
        """Let go of what the pod was promised: the claim shows it, or it will not be written. False for nothing."""
        promise = self._promises.get(claim)
        if promise is None or promise.pod_uid != pod_uid:
            return False
        del self._promises[claim]
        self._changed()
        return True

    def pools(self) -> list[Pool]:
        """All pools in their newest generation."""
        if self._pools is None:
            self._pools = pools_of(self._slices.values())
            self._by_id = {device.id: device for pool in self._pools for device in pool.devices}
        return self._pools

    def facts(self) -> Facts:
        """What others have, and what classes ask for."""
        if self._facts is None:
            self.pools()
            taken = set(self._given())
            if len(self._known) > _MOST_KNOWN:
                self._known.clear()
            self._facts = Facts(taken, self._selectors.get, self._used(taken), self._known)
        return self._facts

    def missing_class(self, wish: Wish) -> str:
        """A sentence about a class that a claim names and nobody has made; empty where there is none."""
        for choices in wish.requests:
            for choice in choices:
                if choice.device_class not in self.classes:
                    return f"request {choice.name}: device class {choice.device_class} does not exist"
        return ""

    def _given(self) -> Iterator[DeviceId]:
        for claim in self.claims.values():
            yield from claim.devices
        for promise in self._promises.values():
            yield from promise.devices

    def _used(self, taken: Iterable[DeviceId]) -> Mapping[tuple[PoolId, CounterKey], Quantity]:
        used: dict[tuple[PoolId, CounterKey], Quantity] = {}
        for one in taken:
            device = self._by_id.get(one)
            for key, amount in device.consumes.items() if device is not None else ():
                at = (PoolId(one.driver, one.pool), key)
                used[at] = used.get(at, Quantity.of(0)) + amount
        return used

    def _changed(self) -> None:
        self.version += 1
        self._facts = None


def unallocated(devices: Devices, keys: Collection[str]) -> Sequence[Wish]:
    """What those of the claims ask for that have no devices yet."""
    found = []
    for key in keys:
        view = devices.claims.get(key)
        if view is not None and not view.is_allocated:
            found.append(view.wish)
    return found
