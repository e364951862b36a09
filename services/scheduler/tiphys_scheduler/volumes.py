"""What the scheduler knows of storage: claims, volumes, classes and drivers, and what it has promised meanwhile.

Watches show a promise late. So a volume that was chosen for a claim, and a node that was chosen for one, count from the
moment of the choice until the binding has ended one way or the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.meta.v1.meta_pb2 import LabelSelector
from tiphys.api.storage.v1.storage_pb2 import CSIDriver, CSINode, CSIStorageCapacity, StorageClass
from tiphys_apimachinery.persistent_volumes import (
    ClaimView,
    ClassView,
    VolumeView,
    best_first,
    claim_view,
    class_view,
    is_candidate,
    reserved_for,
    volume_view,
)
from tiphys_apimachinery.quantity import Quantity
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_component.clock import Clock


@dataclass(frozen=True, slots=True)
class DriversView:
    """The CSI drivers of one node, each with how many volumes it takes there; None for any number."""

    node: str
    limits: Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class CapacityView:
    """Room for volumes of a class: the largest that can be made, None if unknown, and on which nodes, None on none."""

    storage_class: str
    largest_bytes: int | None
    nodes: LabelSelector | None

    def takes(self, size_bytes: int) -> bool:
        """Whether a volume of this size can be made."""
        return self.largest_bytes is not None and self.largest_bytes >= size_bytes


@dataclass(frozen=True, slots=True)
class StorageInformers:
    """Informers of the kinds that volume binding looks at; of a CSIDriver it is whether it tells its room."""

    claims: Informer[PersistentVolumeClaim, ClaimView]
    volumes: Informer[PersistentVolume, VolumeView]
    classes: Informer[StorageClass, ClassView]
    drivers: Informer[CSINode, DriversView]
    driver_kinds: Informer[CSIDriver, bool]
    capacities: Informer[CSIStorageCapacity, CapacityView]

    def all(self) -> tuple[Informer[Any, Any], ...]:
        """All of them."""
        return (self.claims, self.volumes, self.classes, self.drivers, self.driver_kinds, self.capacities)


def storage_informers(client: Client, clock: Clock, rng: Random | None = None) -> StorageInformers:
    """Informers of this process; the caller runs them."""
    return StorageInformers(
        Informer(client, PersistentVolumeClaim, clock=clock, projection=claim_view, rng=rng),
        Informer(client, PersistentVolume, clock=clock, projection=volume_view, rng=rng),
        Informer(client, StorageClass, clock=clock, projection=class_view, rng=rng),
        Informer(client, CSINode, clock=clock, projection=drivers_view, rng=rng),
        Informer(client, CSIDriver, clock=clock, projection=tells_room, rng=rng),
        Informer(client, CSIStorageCapacity, clock=clock, projection=capacity_view, rng=rng),
    )


def drivers_view(item: CSINode) -> DriversView:
    """The drivers of a node."""
    return DriversView(
        item.metadata.name,
        {
            driver.name: driver.allocatable.count if driver.allocatable.HasField("count") else None
            for driver in item.spec.drivers
        },
    )


def tells_room(item: CSIDriver) -> bool:
    """Whether a driver says how much room there is for its volumes, and wants that heeded."""
    return item.spec.storageCapacity


def capacity_view(item: CSIStorageCapacity) -> CapacityView:
    """Room for volumes; the largest volume is more exact than all the room there is."""
    limit = next((getattr(item, name) for name in ("maximumVolumeSize", "capacity") if item.HasField(name)), None)
    return CapacityView(
        item.storageClassName,
        Quantity.parse(limit.string).value() if limit is not None else None,
        item.nodeTopology if item.HasField("nodeTopology") else None,
    )


@dataclass(frozen=True, slots=True)
class Decisions:
    """What was chosen for the claims of a pod on its node; claims are all that must be bound before the pod is.

    reservations are (claim, volume) of volumes that are there; for provisions a volume is to be made. Both hold keys.
    """

    node: str
    claims: tuple[str, ...] = ()
    reservations: tuple[tuple[str, str], ...] = ()
    provisions: tuple[str, ...] = ()


class Volumes:
    """Storage by key and by name. Owned by the scheduler's loop."""

    def __init__(self) -> None:
        self.claims: dict[str, ClaimView] = {}
        self._volumes: dict[str, VolumeView] = {}
        self._by_class: dict[str, dict[str, VolumeView]] = {}
        self._by_claim: dict[str, dict[str, VolumeView]] = {}
        self.classes: dict[str, ClassView] = {}
        self._drivers: dict[str, DriversView] = {}
        # Drivers that tell how much room there is for their volumes.
        self._telling: set[str] = set()
        self._capacities: dict[str, CapacityView] = {}
        # Volume -> claim, and claim -> node, that pods on their way were promised.
        self._promised: dict[str, str] = {}
        self._promised_node: dict[str, str] = {}
        # Pods that use each claim, assumed ones included.
        self._users: dict[str, set[str]] = {}
        # How many pods of each node use each claim.
        self._on_node: dict[str, Counter[str]] = {}

    def set_claim(self, key: str, view: ClaimView | None) -> bool:
        """A claim as the API says, None when it is gone; True where a pod may be judged otherwise now."""
        old = self.claims.pop(key, None)
        if view is not None:
            self.claims[key] = view
        return old is None or view is None or _gist(old) != _gist(view)

    def set_volume(self, name: str, view: VolumeView | None) -> None:
        """A volume as the API says, None when it is gone."""
        old = self._volumes.pop(name, None)
        if old is not None:
            self._by_class[old.storage_class].pop(name, None)
            self._by_claim.get(old.claim, {}).pop(name, None)
        if view is not None:
            self._volumes[name] = view
            self._by_class.setdefault(view.storage_class, {})[name] = view
            if view.claim:
                self._by_claim.setdefault(view.claim, {})[name] = view

    def set_drivers(self, node: str, view: DriversView | None) -> None:
        """The drivers of a node, None when they are gone."""
        self._drivers.pop(node, None)
        if view is not None:
            self._drivers[node] = view

    def set_driver(self, name: str, *, tells_room: bool) -> bool:
        """A driver as the API says; True where it no longer holds pods back for want of room."""
        was_telling = name in self._telling
        (self._telling.add if tells_room else self._telling.discard)(name)
        return was_telling and not tells_room

    def set_capacity(self, key: str, view: CapacityView | None) -> bool:
        """Room as the API says, None when it is no longer told; True where there is more than before."""
        old = self._capacities.pop(key, None)
        if view is None:
            return False
        self._capacities[key] = view
        return old is None or (view.largest_bytes is not None and not old.takes(view.largest_bytes))

    def tells_room(self, driver: str) -> bool:
        """Whether volumes of a driver are made only where it says that there is room."""
        return driver in self._telling

    def room(self, storage_class: str) -> list[CapacityView]:
        """What is told of the room for volumes of a class."""
        return [item for item in self._capacities.values() if item.storage_class == storage_class]

    def volume(self, name: str) -> VolumeView | None:
        """A volume by name."""
        return self._volumes.get(name)

    def candidates(self, claim: ClaimView) -> list[VolumeView]:
        """The volumes that the claim could take, best first: the reserved one alone, if there is one."""
        reserved = reserved_for(claim, self._by_claim.get(claim.key, {}).values())
        if reserved is not None:
            return [reserved]
        of_class = self._by_class.get(claim.storage_class, {}).values()
        return best_first(
            item
            for item in of_class
            if is_candidate(item, claim) and self._promised.get(item.name, claim.key) == claim.key
        )

    def node_chosen(self, claim: ClaimView) -> str:
        """The node for which a volume of the claim is being made, empty before one is chosen."""
        return self._promised_node.get(claim.key) or claim.selected_node

    def nodes_with(self, driver: str) -> set[str]:
        """The nodes on which a driver runs; empty where none is known to have it."""
        return {item.node for item in self._drivers.values() if driver in item.limits}

    def limits(self, driver: str) -> dict[str, int]:
        """By node, how many volumes of the driver it takes; nodes that take any number are not in it."""
        found = ((item.node, item.limits.get(driver)) for item in self._drivers.values())
        return {node: limit for node, limit in found if limit is not None}

    def driver_of(self, claim: ClaimView) -> str:
        """The CSI driver that serves, or would serve, the claim; empty for none."""
        volume = self._volumes.get(claim.volume)
        if volume is not None:
            return volume.driver
        item = self.classes.get(claim.storage_class)
        return item.provisioner if item is not None and item.can_provision else ""

    def assume(self, decisions: Decisions) -> None:
        """Hold what was chosen."""
        for claim, volume in decisions.reservations:
            self._promised[volume] = claim
        for claim in decisions.provisions:
            self._promised_node[claim] = decisions.node

    def forget(self, decisions: Decisions) -> None:
        """Let go of what was chosen: it is written, or will not be."""
        for _, volume in decisions.reservations:
            self._promised.pop(volume, None)
        for claim in decisions.provisions:
            self._promised_node.pop(claim, None)

    def use(self, pod: str, node: str, claims: Iterable[str]) -> None:
        """A pod that has a node uses these claims."""
        for claim in claims:
            self._users.setdefault(claim, set()).add(pod)
            self._on_node.setdefault(node, Counter())[claim] += 1

    def leave(self, pod: str, node: str, claims: Iterable[str]) -> None:
        """A pod is gone or finished, or will not come."""
        for claim in claims:
            on_node = self._on_node[node]
            on_node[claim] -= 1
            if not on_node[claim]:
                del on_node[claim]
            if not on_node:
                del self._on_node[node]
            users = self._users.get(claim)
            if users is not None:
                users.discard(pod)
                if not users:
                    del self._users[claim]

    def used_by_others(self, claim: str, pod: str) -> bool:
        """Whether another pod with a node uses the claim."""
        return bool(self._users.get(claim, set()) - {pod})

    def claims_on(self, node: str) -> set[str]:
        """The claims that pods of a node use."""
        return set(self._on_node.get(node, ()))


def _gist(view: ClaimView) -> tuple[object, ...]:
    return view.uid, view.is_bound, view.volume, view.selected_node, view.storage_class, view.is_deleting, view.phase
