"""The device manager: knows the devices that plugins offer, gives them to containers, and remembers who holds which.

What it holds lies in a checkpoint, so that a pod keeps its devices while the kubelet is away and nobody else is given
them before the plugin has come back. A plugin that goes away makes its devices unhealthy at once; only when it has not
come back for GRACE_S does its resource go from the node. Until a plugin that was there a moment ago is given up as
lost, pods that were already sent here wait for it rather than fail.
Source: the documented device plugin contract v1beta1 and the kubelet's behaviour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from tiphys.api.core.v1.container_pb2 import Container, ResourceStatus
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery import validation
from tiphys_component.app import start_loop
from tiphys_component.clock import Clock, Timer
from tiphys_component.log import get_logger
from tiphys_component.proc import to_thread
from tiphys_kubelet.resources import allocation, checkpoint
from tiphys_kubelet.resources.allocation import Demand, DeviceState, Holding, NotYet, Refused, Slot, Stock
from tiphys_kubelet.resources.checkpoint import Checkpoint, CheckpointKeeper, CorruptCheckpoint
from tiphys_kubelet.resources.endpoint import PluginEndpoint, PluginFailure
from tiphys_kubelet.resources.grants import DeviceGrant, make_grant

# Source: the documented time after which a plugin that is gone is forgotten.
GRACE_S = 300.0
EXPECTED_AFTER_START_S = 30.0
EXPECTED_AFTER_LOSS_S = 10.0
T = TypeVar("T")


class PluginRefused(Exception):
    """A plugin can't be registered; it is told the message."""


class DeviceManager:
    """Devices of one node. `run` must be running for plugins to be followed and anything to be kept.

    `on_counts` is called when capacity or allocatable changed, `on_resource` with a resource when its devices did,
    `report` with a reason and a message for what an operator should see.
    """

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        *,
        on_counts: Callable[[], None],
        on_resource: Callable[[str], None],
        report: Callable[[str, str], None],
    ) -> None:
        self.folder = folder
        self._clock = clock
        self._on_counts = on_counts
        self._on_resource = on_resource
        self._report = report
        self._stocks: dict[str, Stock] = {}
        self._plugins: dict[str, PluginEndpoint] = {}
        self._holdings: dict[Slot, Holding] = {}
        # Held, but the plugin has not answered yet: never written, since a container without the answer has no device.
        self._pending: set[Slot] = set()
        # Ids of each resource's devices as the checkpoint has them, or is about to.
        self._ids: dict[str, tuple[str, ...]] = {}
        self._removed: set[str] = set()
        self._timers: dict[str, list[Timer]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._path = folder / checkpoint.FILE_NAME
        self._keeper = CheckpointKeeper(self._path, self._snapshot)
        self._group: asyncio.TaskGroup | None = None
        self._loaded = asyncio.Event()
        self._log = get_logger("kubelet.devices")

    async def load(self) -> None:
        """Reads who holds what, once. A file that can't be understood is put aside, and told of. Raises OSError."""
        if self._loaded.is_set():
            return
        await to_thread(self.folder.mkdir, parents=True, exist_ok=True)
        try:
            known = await to_thread(checkpoint.read, self._path)
        except CorruptCheckpoint as err:
            aside = self._path.with_name(f"{self._path.name}.corrupt")
            await to_thread(self._path.replace, aside)
            self._log.error("device checkpoint is corrupt, put aside", path=str(aside), err=str(err))
            self._report("CorruptDeviceCheckpoint", f"device allocations are unknown: {err}; see {aside}")
            known = Checkpoint()
        self._holdings = dict(known.holdings)
        for name, ids in known.registered.items():
            devices = {device: DeviceState(device, False) for device in ids}
            self._stocks[name] = Stock(devices, connected=False, expected=True)
        self._ids = {name: tuple(ids) for name, ids in known.registered.items()}
        self._loaded.set()

    async def wait_loaded(self) -> None:
        """Returns when it is known who holds what: nobody may be given a device, or lose one, before."""
        await self._loaded.wait()

    async def run(self) -> None:
        """Follows plugins and writes the checkpoint, for ever."""
        await self.load()
        async with asyncio.TaskGroup() as group:
            self._group = group
            for name in self._stocks:
                self._await_return(name, EXPECTED_AFTER_START_S)
            try:
                start_loop(group, self._keeper.run(), "device checkpoint")
                await asyncio.get_running_loop().create_future()
            finally:
                self._group = None
                for name in list(self._timers):
                    self._stop_waiting(name)

    async def register(self, resource: str, path: str) -> None:
        """Takes a plugin up, in the place of an earlier one of its resource. Raises PluginRefused."""
        check_resource(resource)
        plugin = PluginEndpoint(resource, path)
        try:
            await plugin.dial()
        except PluginFailure as err:
            await plugin.close()
            raise PluginRefused(f"failed to dial device plugin: {path}: {err}") from err
        except BaseException:
            await plugin.close()
            raise
        if self._group is None:
            await plugin.close()
            raise PluginRefused("the kubelet is stopping")
        earlier = self._plugins.get(resource)
        self._plugins[resource] = plugin
        self._group.create_task(self._follow(plugin), name=f"device plugin {resource}")
        self._log.info("device plugin registered", resource=resource, endpoint=path)
        if earlier is not None:
            await earlier.close()

    async def deregister(self, resource: str) -> None:
        """The plugin of a resource is gone. Succeeds where there is none."""
        plugin = self._plugins.get(resource)
        if plugin is not None:
            self._lost(plugin, "deregistered")
            await plugin.close()

    def counts(self) -> dict[str, tuple[int, int]]:
        """Capacity and allocatable by resource; a resource that went away is 0."""
        return dict.fromkeys(self._removed, (0, 0)) | allocation.counts(self._stocks)

    def stocks(self) -> Mapping[str, Stock]:
        """The devices by resource; read only."""
        return self._stocks

    def holdings(self) -> Mapping[Slot, Holding]:
        """Who holds what for good; read only."""
        return {slot: held for slot, held in self._holdings.items() if slot not in self._pending}

    def owners(self) -> frozenset[str]:
        """Uids of the pods that hold devices."""
        return frozenset(slot.pod_uid for slot in self._holdings)

    def wants_devices(self, pod: Pod) -> bool:
        """The pod asks for what a plugin offers."""
        return any(allocation.is_managed(d.resource, self._stocks, self._holdings) for d in allocation.demands(pod))

    async def allocate(self, pod: Pod, running: Collection[str] = ()) -> None:
        """Gives the pod all its devices or none; repeating it changes nothing.

        Containers that run already are left as they are. Raises Refused, NotYet, and OSError where what was given
        can't be kept.
        """
        given: list[Slot] = []
        try:
            for demand in allocation.demands(pod):
                managed = allocation.is_managed(demand.resource, self._stocks, self._holdings)
                if managed and demand.container not in running:
                    await self._give(pod, demand, given)
            if given:
                await self._keeper.save()
        except BaseException:
            for slot in given:
                self._holdings.pop(slot, None)
                self._pending.discard(slot)
            if given:
                self._keeper.touch()
            raise

    async def prepare(self, pod: Pod, container: Container) -> DeviceGrant:
        """What the container is to be made with, after its plugins were told of the start.

        Raises PluginFailure, and NotYet while a plugin that must be told is expected back.
        """
        answers = []
        for demand in allocation.demands(pod):
            held = self._holdings.get(Slot(pod.metadata.uid, container.name, demand.resource))
            if demand.container != container.name or held is None:
                continue
            stock, plugin = self._stocks.get(demand.resource), self._plugins.get(demand.resource)
            if stock is not None and stock.expected:
                # After a reboot the device's nodes may be there only when its plugin is.
                raise NotYet(f"the device plugin of {demand.resource} has not registered yet")
            if plugin is not None:
                await plugin.pre_start(held.devices)
            answers.append(held.grant)
        return make_grant(answers)

    def release(self, pod_uid: str) -> None:
        """Takes back what the pod holds; nothing if it holds nothing."""
        if pod_uid in self.owners():
            self._holdings = allocation.without_pods(self._holdings, {pod_uid})
            self._keeper.touch()

    def health(self, pod: Pod) -> dict[str, list[ResourceStatus]]:
        """The health of each container's devices, for the pod's status."""
        found: dict[str, list[ResourceStatus]] = {}
        for slot, held in sorted(self._holdings.items()):
            if slot.pod_uid == pod.metadata.uid and slot not in self._pending:
                status = ResourceStatus(name=slot.resource)
                for device in held.devices:
                    status.resources.add(resourceID=device, health=self._health_of(slot.resource, device))
                found.setdefault(slot.container, []).append(status)
        return found

    def _health_of(self, resource: str, device: str) -> str:
        stock = self._stocks.get(resource)
        if stock is None or not stock.connected or device not in stock.devices:
            return "Unknown"
        return "Healthy" if stock.devices[device].healthy else "Unhealthy"

    async def _give(self, pod: Pod, demand: Demand, given: list[Slot]) -> None:
        """Holds devices for one container and asks their plugin for the answer. What it holds is added to `given`."""
        slot = Slot(pod.metadata.uid, demand.container, demand.resource)
        async with self._locks.setdefault(demand.resource, asyncio.Lock()):
            choice = allocation.choose(demand, pod, self._stocks, self._holdings)
            if choice is None:
                return
            plugin = self._plugins[demand.resource]
            preferred = await self._ask(plugin, plugin.preferred(choice))
            # Others may have given devices back meanwhile, but under the lock nobody has been given any.
            devices = allocation.pick(choice, preferred)
            self._holdings[slot] = Holding(devices)
            self._pending.add(slot)
            given.append(slot)
        grant = await self._ask(plugin, plugin.allocate(devices))
        self._holdings[slot] = Holding(devices, grant)
        self._pending.discard(slot)

    async def _ask(self, plugin: PluginEndpoint, call: Awaitable[T]) -> T:
        """The answer of a plugin. Raises NotYet if it went away, Refused for any other error."""
        try:
            return await call
        except PluginFailure as err:
            if not err.is_gone:
                raise Refused(str(err)) from err
            self._lost(plugin, str(err))
            raise NotYet(str(err)) from err

    async def _follow(self, plugin: PluginEndpoint) -> None:
        """Takes in what a plugin tells until it ends."""
        try:
            async for told in plugin.devices():
                await self._told(plugin, told)
            self._lost(plugin, "its list of devices ended")
        except PluginFailure as err:
            self._lost(plugin, str(err))
        finally:
            await plugin.close()

    async def _told(self, plugin: PluginEndpoint, told: Sequence[DeviceState]) -> None:
        resource = plugin.resource
        if self._plugins.get(resource) is not plugin:
            return
        devices, twice = allocation.merge_devices(told)
        if twice:
            message = f"device plugin of {resource} told these ids more than once: {', '.join(twice)}"
            self._log.warning("device plugin told an id more than once", resource=resource, ids=twice)
            self._report("DuplicateDevices", message)
        if self._ids.get(resource) != tuple(devices):
            # Written before anybody is told: a kubelet that starts anew must know of every count that was told.
            self._ids[resource] = tuple(devices)
            await self._save_ids()
            if self._plugins.get(resource) is not plugin:
                return
        self._stop_waiting(resource)
        self._removed.discard(resource)
        self._set(resource, Stock(devices, connected=True))

    async def _save_ids(self) -> None:
        try:
            await self._keeper.save()
        except OSError as err:
            self._log.error("devices can't be kept for the next start", err=str(err))

    def _lost(self, plugin: PluginEndpoint, why: str) -> None:
        """The plugin is gone; unless another has taken its place its devices are unhealthy from now on."""
        resource = plugin.resource
        if self._plugins.get(resource) is not plugin:
            return
        del self._plugins[resource]
        self._log.warning("device plugin is gone", resource=resource, err=why)
        stock = self._stocks.get(resource)
        if stock is not None:
            self._await_return(resource, EXPECTED_AFTER_LOSS_S)
            self._set(resource, replace(stock, connected=False, expected=True))

    def _set(self, resource: str, stock: Stock) -> None:
        before = self._stocks.get(resource)
        if before == stock:
            return
        counts = self.counts()
        self._stocks[resource] = stock
        if self.counts() != counts:
            self._on_counts()
        self._on_resource(resource)

    def _await_return(self, resource: str, expected_s: float) -> None:
        self._stop_waiting(resource)
        self._timers[resource] = [
            self._clock.call_later(expected_s, lambda: self._give_up(resource)),
            self._clock.call_later(GRACE_S, lambda: self._remove(resource)),
        ]

    def _stop_waiting(self, resource: str) -> None:
        for timer in self._timers.pop(resource, ()):
            timer.cancel()

    def _give_up(self, resource: str) -> None:
        """Pods wait for the plugin no longer."""
        self._set(resource, replace(self._stocks[resource], expected=False))

    def _remove(self, resource: str) -> None:
        """The resource goes from the node."""
        self._stop_waiting(resource)
        del self._stocks[resource]
        self._ids.pop(resource, None)
        self._removed.add(resource)
        self._keeper.touch()
        self._log.warning("device plugin did not come back, its resource is removed", resource=resource)
        self._on_counts()
        self._on_resource(resource)

    def _snapshot(self) -> Checkpoint:
        return Checkpoint(self.holdings(), dict(self._ids))


def check_resource(resource: str) -> None:
    """Raises PluginRefused for a name that no plugin may offer."""
    faults: Iterable[str] = validation.is_qualified_name(f"requests.{resource}")
    if not allocation.is_extended(resource) or resource.startswith("requests.") or any(faults):
        raise PluginRefused(f'the ResourceName "{resource}" is invalid')
