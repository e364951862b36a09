"""Starting a cluster: from whatever is there (nothing, a part, all of it) to one that answers.

Every step ensures rather than creates, so that `up` on a running cluster changes nothing, and after a crash it puts
back what is missing. What does not depend on each other goes side by side; the longest path on a warm machine is
imports, API server, kubelet, node Ready.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

from tiphys_cluster import cgroups, claims, components, network, preflight, readiness
from tiphys_cluster.api import api_of
from tiphys_cluster.child import ChildSpec
from tiphys_cluster.choices import Machine, Wish, free_port_pair, kept_settings, layout_for, merge, read_living
from tiphys_cluster.components import Place
from tiphys_cluster.control import ZygoteClient, ensure_zygote, read_zygote
from tiphys_cluster.errors import ClusterError, first_error
from tiphys_cluster.images.builtin import ensure_archives
from tiphys_cluster.images.loading import fill_pool
from tiphys_cluster.layout import Layout
from tiphys_cluster.nodes import Nodes
from tiphys_cluster.pki import Pki
from tiphys_cluster.progress import Progress
from tiphys_cluster.settings import Settings, save
from tiphys_cluster.storage import ensure_storage
from tiphys_component.clock import Clock
from tiphys_component.proc import to_thread

_ROUTES = Path("/proc/net/route")
_APISERVER_TIMEOUT_S = 30.0
_ETCD_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Started:
    """A cluster that is up."""

    layout: Layout
    settings: Settings
    was_running: bool


class Startup:
    """One start of one cluster."""

    def __init__(self, wish: Wish, *, machine: Machine, clock: Clock, progress: Progress) -> None:
        self._machine = machine
        self._clock = clock
        self._progress = progress
        self._layout = layout_for(wish.name, wish.home, machine.run_root)
        self._settings = merge(wish, kept_settings(self._layout))
        self._own = read_living(self._layout)
        # The network, until the leg says whose it is.
        self._held = contextlib.ExitStack()

    async def run(self) -> Started:
        """Start the cluster and wait until it answers and its nodes are Ready. Raises ClusterError."""
        try:
            with claims.cluster_lock(self._layout), self._held:
                return await self._run()
        except BaseExceptionGroup as group:
            # Steps that run side by side raise groups; the user needs the first reason only.
            raise first_error(group) from group

    async def _run(self) -> Started:
        began = self._clock.now()
        was_running = read_zygote(self._layout) is not None or bool(self._own)
        self._check(was_running)
        self._settle(was_running)
        place = self._place()
        self._progress.step("certificates, network and images")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(to_thread(self._ensure_certificates), name="certificates")
            tasks.create_task(to_thread(self._fill_pool), name="images")
            tasks.create_task(network.ensure_switch(self._layout, self._settings), name="switch")
            zygote = await ensure_zygote(self._layout)
        async with zygote:
            await zygote.start(components.keeper(place))
            await zygote.start(components.registry_proxy(place))
            nodes = Nodes(place, zygote, clock=self._clock)
            async with asyncio.TaskGroup() as tasks:
                for node in self._settings.nodes:
                    tasks.create_task(self._start_runtime(nodes, node), name=f"runtime of {node}")
                tasks.create_task(self._start_control_plane(zygote, place), name="control plane")
            self._progress.step("starting the nodes' agents")
            async with asyncio.TaskGroup() as tasks:
                for node in self._settings.nodes:
                    tasks.create_task(nodes.start_agents(node), name=f"agents of {node}")
            self._progress.step("waiting for the nodes")
            async with asyncio.TaskGroup() as tasks:
                for node in self._settings.nodes:
                    ready = nodes.wait_ready(node, since=None if was_running else began)
                    tasks.create_task(ready, name=f"node {node}")
                tasks.create_task(ensure_storage(api_of(self._layout, self._settings)), name="storage class")
            for node in self._settings.nodes:
                await nodes.start_extensions(node)
        return Started(self._layout, self._settings, was_running)

    def _fill_pool(self) -> None:
        fill_pool(self._layout.images, ensure_archives(self._machine.cache / "images"))

    async def _start_runtime(self, nodes: Nodes, node: str) -> None:
        await nodes.start_runtime(node)
        await nodes.load_images(node)

    def _check(self, was_running: bool) -> None:
        """Preflight; the ports that the cluster itself holds are not in its way."""
        network.check_no_namesake(self._layout)
        if was_running:
            claim = claims.read_claims(self._machine.run_root).get(self._settings.name)
            if claim is not None and claim.settings.port_offset != self._settings.port_offset:
                raise ClusterError(
                    f"cluster {self._settings.name!r} is up with port offset {claim.settings.port_offset}",
                    f"Stop it first: tiphys down --name {self._settings.name}",
                )
        preflight.check(
            self._settings,
            self._layout.home,
            self._machine.checks,
            needs_compiler=not (self._machine.cache / "images" / "archives.json").exists(),
            own_ports={port for spec in self._own for port in spec.ports},
        )

    def _settle(self, was_running: bool) -> None:
        """Choose what is the machine's to give (network, etcd's ports) and write down what was chosen."""
        with claims.machine_lock(self._machine.run_root):
            if not was_running:
                self._choose_network()
                if self._settings.store == "etcd":
                    self._settings = replace(self._settings, etcd_port=free_port_pair(self._settings.etcd_port))
            claims.write_claim(self._layout, self._settings)
        save(self._layout.settings, self._settings)

    def _choose_network(self) -> None:
        """A network that no other cluster has: by its record, by its leg, or by a start that is just going on."""
        known = claims.read_claims(self._machine.run_root)
        known.pop(self._settings.name, None)
        taken = {claim.settings.network for claim in known.values()}
        while True:
            # What is left of a crash of this very cluster is its own to take over.
            own = {index for index, owner in network.legs().items() if owner == self._layout.run}
            taken |= (claims.networks_in_use(_ROUTES.read_text()) | network.legs().keys()) - own
            self._settings = claims.choose_network(self._settings, taken)
            held = claims.reserve_network(self._settings.network)
            if held is not None:
                # Looked at again: a start that held it before may have put its leg there in between.
                if network.leg_owner(self._settings.network) in (None, self._layout.run):
                    self._held.enter_context(held)
                    return
                held.close()
            taken.add(self._settings.network)

    def _place(self) -> Place:
        tracking = cgroups.choose_tracking(cgroups.read_hierarchies())
        return Place(self._layout, self._settings, str(tracking.root), self._machine.proxy_url)

    def _ensure_certificates(self) -> None:
        Pki(self._layout, self._settings, self._clock).ensure()

    async def _start_control_plane(self, zygote: ZygoteClient, place: Place) -> None:
        self._layout.store.mkdir(parents=True, exist_ok=True, mode=0o700)
        for spec in components.store(place):
            self._progress.step("starting etcd")
            await zygote.start(spec)
            await self._wait_for_port(spec, _ETCD_TIMEOUT_S)
        self._progress.step("starting the API server")
        await zygote.start(components.apiserver(place))
        agents = [spec for node in self._settings.nodes for spec in components.agents(place, node)]
        later = [*components.control_plane(place), *agents]
        async with asyncio.TaskGroup() as tasks:
            # The zygote imports what it forks next while the API server starts on the other core.
            tasks.create_task(zygote.preload([spec.module for spec in later if spec.module]), name="imports")
            tasks.create_task(self._wait_for_apiserver(), name="API server")
        self._progress.step("starting controllers, scheduler and DNS")
        for spec in components.control_plane(place):
            await zygote.start(spec)

    def _all_agents(self, place: Place) -> list[ChildSpec]:
        return [spec for node in self._settings.nodes for spec in components.agents(place, node)]

    async def _wait_for_port(self, spec: ChildSpec, timeout_s: float) -> None:
        await readiness.wait_until(
            lambda: readiness.is_listening(spec.address, spec.ports[0]),
            what=spec.name,
            timeout_s=timeout_s,
            clock=self._clock,
            log=Path(spec.log),
        )

    async def _wait_for_apiserver(self) -> None:
        await readiness.wait_until(
            api_of(self._layout, self._settings).is_ready,
            what="the API server",
            timeout_s=_APISERVER_TIMEOUT_S,
            clock=self._clock,
            log=self._layout.log(components.APISERVER),
        )
