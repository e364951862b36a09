"""The loop: wait for a change of leases or of the kernel, work out which leases stand, have the back end apply them.

Level, not edge: each round compares everything, so that it makes no difference which message woke it, what a life
before left behind, and what was missed meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from tiphys.api.core.v1.node_pb2 import Node
from tiphys_apimachinery.errors import APIError
from tiphys_cni.flannel import lease
from tiphys_cni.flannel.backend.interface import Backend, BackendError
from tiphys_cni.flannel.lease import Lease, LeaseError, Survey
from tiphys_cni.flannel.monitor import Monitor
from tiphys_cni.flannel.subnet import SubnetEnv
from tiphys_cni.flannel.subnet_manager import SubnetManager
from tiphys_component.app import start_loop
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.inotify import FolderWatch
from tiphys_component.log import get_logger
from tiphys_component.metrics import Registry
from tiphys_component.proc import CommandError

_log = get_logger("flannel")
# Changes that come together are looked at together, as the kernel tells of each entry of a deleted device.
_GATHER_S = 0.02


@dataclass(frozen=True, slots=True)
class Config:
    """What the manager is to do besides its back end's work."""

    node: str
    network: IPv4Network
    subnet_file: Path
    ip_masq: bool


class Manager:
    """Owns the node's lease. What the properties tell is as of the last round."""

    def __init__(
        self,
        config: Config,
        backend: Backend,
        leases: SubnetManager,
        *,
        prepare: Callable[[], Awaitable[None]],
        clock: Clock,
        registry: Registry,
    ) -> None:
        """`prepare` makes the node ready for any back end; once it has succeeded, only prepare_again has it called."""
        self._config = config
        self._backend = backend
        self._leases = leases
        self._prepare = prepare
        self._is_prepared = False
        self._clock = clock
        self._rounds = registry.counter(
            "flannel_syncs_total", "Comparisons of the kernel with the leases.", ("result",)
        )
        self._changes = registry.counter("flannel_kernel_changes_total", "Entries and devices written or removed.")
        self._peers = registry.gauge("flannel_leases", "Leases of other nodes.", ("state",))
        self._wake = asyncio.Event()
        # A caller's Sync and the loop must not work at once: each would undo what the other knows.
        self._lock = asyncio.Lock()
        self.survey = Survey(None, "the Nodes are not known yet", {}, (), {})
        self.refused: Mapping[str, str] = {}
        self.mtu = 0
        leases.on_change(self._wake.set)

    @property
    def backend(self) -> Backend:
        """The back end in use."""
        return self._backend

    @property
    def network(self) -> IPv4Network:
        """The range of all pods."""
        return self._config.network

    @property
    def own(self) -> Lease | None:
        """The node's own lease; None while none is held."""
        if self.survey.own is None or not self.mtu:
            return None
        told = self._backend.announce()
        return Lease(self._config.node, self.survey.own, told.public_ip, told.backend, told.data or {})

    def prepare_again(self) -> None:
        """Has the next round prepare the node anew, and it begin now."""
        self._is_prepared = False
        self._wake.set()

    async def run(self) -> None:
        """Follows leases and kernel until cancelled; what keeps the leases is run by the caller."""
        monitor = Monitor(self._wake.set, lambda: self._backend.devices, lambda: self._backend.overlay)
        try:
            async with asyncio.TaskGroup() as group:
                start_loop(group, self.follow(), "leases")
                start_loop(group, monitor.run(), "kernel monitor")
                start_loop(group, self._guard_subnet_file(), "subnet file")
        finally:
            await self._backend.close()

    async def _guard_subnet_file(self) -> None:
        """Without the file no pod could be attached: written again where somebody takes it away."""
        folder = self._config.subnet_file.parent
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        with FolderWatch(folder) as watch:
            while True:
                await watch.wait()
                if not await asyncio.to_thread(self._config.subnet_file.exists):
                    self._wake.set()

    async def follow(self) -> None:
        """Does a round whenever something wakes it, and again after one that failed. Runs until cancelled."""
        await self._leases.wait_synced()
        backoff = Backoff(base_s=0.1, cap_s=5.0)
        self._wake.set()
        while True:
            await self._wake.wait()
            await self._clock.sleep(_GATHER_S)
            self._wake.clear()
            try:
                await self.sync()
            except (OSError, BackendError, CommandError, APIError) as err:
                self._rounds.labels("failed").inc()
                delay_s = backoff.next()
                _log.error("leases not applied", err=str(err) or type(err).__name__, retry_after_s=delay_s)
                # Whatever happens before that is a reason to try at once.
                self._clock.call_later(delay_s, self._wake.set)
            else:
                backoff.reset()

    async def sync(self) -> int:
        """One round; returns how much of the kernel was changed.

        Raises OSError, BackendError, CommandError; and APIError where all is in place but could not be announced.
        """
        async with self._lock:
            found = await self._leases.survey()
            if found.own is None:
                self._say_absent(found)
                return 0
            opened = await self._backend.open(found.own, _announced(found))
            if not self._is_prepared:
                await self._prepare()
                self._is_prepared = True
            is_first = not self.mtu
            if is_first:
                # Later on traffic must not wait for the API server.
                await self._announce(found)
            await self._write_subnet(found.own, opened.mtu)
            applied = await self._backend.apply(found.peers)
            self._take(found, {**found.refused, **applied.refused}, opened.mtu)
            changes = opened.changes + applied.changes
            self._changes.inc(changes)
            self._rounds.labels("done").inc()
            if changes:
                _log.info("kernel brought in line", changes=changes, peers=len(found.peers), refused=len(self.refused))
            if not is_first:
                await self._announce(found)
            return changes

    async def _write_subnet(self, subnet: IPv4Network, mtu: int) -> None:
        env = SubnetEnv.of(self._config.network, subnet, mtu=mtu, ip_masq=self._config.ip_masq)
        if await asyncio.to_thread(env.write, self._config.subnet_file):
            _log.info("subnet held", subnet=str(subnet), mtu=mtu, backend=self._backend.name)

    async def _announce(self, found: Survey) -> None:
        if await self._leases.announce(found, self._backend.announce()):
            _log.info("lease announced", node=self._config.node, backend=self._backend.name)

    def _say_absent(self, found: Survey) -> None:
        if found.problem != self.survey.problem:
            _log.warning("no lease", node=self._config.node, reason=found.problem)
            if found.is_refused:
                self._leases.warn(found.problem)
        # What was held goes on working; it is only told that the Node no longer says so.
        self.survey = found

    def _take(self, found: Survey, refused: Mapping[str, str], mtu: int) -> None:
        for name, why in refused.items():
            if self.refused.get(name) != why:
                _log.error("lease refused", node=name, reason=why)
                self._leases.warn(why)
        for name in self.refused.keys() - refused.keys():
            _log.info("lease no longer refused", node=name)
        self.survey, self.refused, self.mtu = found, refused, mtu
        kept = sum(peer.node not in refused for peer in found.peers)
        self._peers.labels("used").set(kept)
        self._peers.labels("refused").set(len(refused))


def _announced(found: Survey) -> Mapping[str, object]:
    """What this node told last; what can't be read counts for nothing and is written anew."""
    node = Node()
    node.metadata.annotations.update(found.announced)
    try:
        return lease.parse_data(node)
    except LeaseError:
        return {}
