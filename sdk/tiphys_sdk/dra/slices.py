"""Keeps the ResourceSlices of a driver on a node as the driver offers its devices.

A pool that changes is written as a new generation: the slices that stay are changed in place, new ones made, and those
of before removed last. Whoever reads meanwhile sees a pool that is being updated, and gives none of it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.meta.v1.meta_pb2 import OwnerReference
from tiphys.api.resource.v1.resource_pb2 import ResourceSlice, ResourceSliceSpec
from tiphys_apimachinery.errors import APIError, Conflict, NotFound
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_component.app import start_loop
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_sdk.dra.driver import DevicePool, DraDriver

# Source: k8s.io/api resource/v1, ResourceSliceMaxDevices.
MOST_DEVICES: Final = 128
_RETRY_S: Final = (0.2, 30.0)


@dataclass(frozen=True, slots=True)
class SlicePlan:
    """What is to be written: new slices, changed ones, and names of those to be removed."""

    create: Sequence[ResourceSlice]
    update: Sequence[ResourceSlice]
    delete: Sequence[str]


def plan_slices(
    pools: Iterable[DevicePool],
    existing: Iterable[ResourceSlice],
    *,
    driver: str,
    node: str,
    owner: OwnerReference | None = None,
) -> SlicePlan:
    """What makes the slices of a driver on a node what its pools are. Pure."""
    by_pool: dict[str, dict[str, ResourceSlice]] = {}
    for item in existing:
        by_pool.setdefault(item.spec.pool.name, {})[item.metadata.name] = item
    create: list[ResourceSlice] = []
    update: list[ResourceSlice] = []
    delete: list[str] = []
    for pool in pools:
        old = by_pool.pop(pool.name, {})
        generation = max((item.spec.pool.generation for item in old.values()), default=0)
        specs = _specs(driver, node, pool, generation)
        if {name: item.spec for name, item in old.items()} == specs:
            continue
        for name, spec in _specs(driver, node, pool, generation + 1).items():
            item = ResourceSlice()
            if name in old:
                item.CopyFrom(old.pop(name))
            else:
                item.metadata.name = name
                if owner is not None:
                    item.metadata.ownerReferences.append(owner)
            is_new = not item.HasField("spec")
            item.spec.CopyFrom(spec)
            (create if is_new else update).append(item)
        delete.extend(old)
    for old in by_pool.values():
        delete.extend(old)
    return SlicePlan(create, update, delete)


def _specs(driver: str, node: str, pool: DevicePool, generation: int) -> Mapping[str, ResourceSliceSpec]:
    devices = list(pool.devices)
    parts = [devices[at : at + MOST_DEVICES] for at in range(0, len(devices), MOST_DEVICES)] or [[]]
    mark = hashlib.sha256(f"{driver}/{node}/{pool.name}".encode()).hexdigest()[:8]
    specs = {}
    for number, part in enumerate(parts):
        spec = ResourceSliceSpec(driver=driver, nodeName=node, devices=part)
        spec.pool.name, spec.pool.generation, spec.pool.resourceSliceCount = pool.name, generation, len(parts)
        if number == 0:
            spec.sharedCounters.extend(pool.counters)
        specs[f"{node[:200]}-{mark}-{number}"] = spec
    return specs


class SlicePublisher:
    """Publishes what a driver offers; `run` for ever. Slices that somebody removes or changes are written again."""

    def __init__(self, driver: DraDriver, node: str, client: Client, clock: Clock) -> None:
        self._driver, self._node, self._client, self._clock = driver, node, client, clock
        self._pools: Sequence[DevicePool] | None = None
        self._wake = asyncio.Event()
        self.published = asyncio.Event()
        self._slices: Informer[ResourceSlice, object] = Informer(
            client, ResourceSlice, field_selector=f"spec.driver={driver.name},spec.nodeName={node}", clock=clock
        )
        self._slices.add_handler(on_set=lambda _: self._wake.set(), on_delete=lambda _: self._wake.set())
        self._log = get_logger("dra", driver=driver.name)

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            start_loop(group, self._slices.run(), "slices informer")
            start_loop(group, self._follow(), "devices")
            start_loop(group, self._publish_for_ever(), "publishing")

    async def _follow(self) -> None:
        async for pools in self._driver.pools():
            self._pools = pools
            self._wake.set()

    async def _publish_for_ever(self) -> None:
        await self._slices.wait_synced()
        retry = Backoff(*_RETRY_S)
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._pools is None:
                continue
            try:
                await self._publish(self._pools)
            except APIError as err:
                if not isinstance(err, Conflict):
                    self._log.warning("slices not published, will retry", err=str(err))
                await self._clock.sleep(retry.next())
                self._wake.set()
                continue
            retry.reset()
            self.published.set()

    async def _publish(self, pools: Sequence[DevicePool]) -> None:
        """Raises APIError."""
        listed = await self._client.list(
            ResourceSlice, field_selector=f"spec.driver={self._driver.name},spec.nodeName={self._node}"
        )
        plan = plan_slices(pools, listed.items, driver=self._driver.name, node=self._node, owner=await self._owner())
        for item in plan.update:
            await self._client.update(item)
        for item in plan.create:
            await self._client.create(item)
        for name in plan.delete:
            await self._client.delete(ResourceSlice, name, absent_ok=True)
        if plan.create or plan.update or plan.delete:
            self._log.info("devices published", pools=len(pools), slices=len(plan.create) + len(plan.update))

    async def _owner(self) -> OwnerReference | None:
        """The node: what it offers goes with it."""
        try:
            node = await self._client.get(Node, self._node)
        except NotFound:
            return None
        return OwnerReference(apiVersion="v1", kind="Node", name=self._node, uid=node.metadata.uid, controller=True)
