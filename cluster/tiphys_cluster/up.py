"""Starting a cluster: from whatever is there (nothing, a part, all of it) to one that answers.

Every step ensures rather than creates, so that `up` on a running cluster changes nothing, and after a crash it puts
back what is missing. What does not depend on each other goes side by side; the longest path on a warm machine is
imports, API server, kubelet, node Ready.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tiphys_cluster import cgroups, claims, components, containerd, kernel, mounts, network, preflight, readiness
from tiphys_cluster.child import ChildSpec
from tiphys_cluster.choices import Machine, Wish, free_port_pair, kept_settings, layout_for, merge, read_living
from tiphys_cluster.components import Place
from tiphys_cluster.control import ZygoteClient, ensure_zygote, read_zygote
from tiphys_cluster.errors import ClusterError
from tiphys_cluster.images import loading
from tiphys_cluster.images.builtin import PAUSE, ensure_archives
from tiphys_cluster.layout import Layout
from tiphys_cluster.pki import Pki
from tiphys_cluster.progress import Progress
from tiphys_cluster.readiness import Api
from tiphys_cluster.settings import Settings, save, write_atomic
from tiphys_component.clock import Clock
from tiphys_component.proc import to_thread

_ROUTES = Path("/proc/net/route")
_APISERVER_TIMEOUT_S = 30.0
_RUNTIME_TIMEOUT_S = 30.0
_ETCD_TIMEOUT_S = 20.0
_NODE_TIMEOUT_S = 60.0


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

    async def run(self) -> Started:
        """Start the cluster and wait until it answers and its nodes are Ready. Raises ClusterError."""
        try:
            with claims.cluster_lock(self._layout):
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
            archives = tasks.create_task(to_thread(ensure_archives, self._machine.cache / "images"), name="images")
            tasks.create_task(network.ensure_switch(self._layout, self._settings), name="switch")
            zygote = await ensure_zygote(self._layout)
        async with zygote:
            await zygote.start(components.keeper(place))
            await self._start_nodes_runtime(zygote, place)
            await self._start_control_plane(zygote, place)
            await self._load_images(archives.result())
            await self._start_agents(zygote, place)
        self._progress.step("waiting for the nodes")
        await self._wait_for_nodes(None if was_running else began)
        return Started(self._layout, self._settings, was_running)

    def _check(self, was_running: bool) -> None:
        """Preflight; the ports that the cluster itself holds are not in its way."""
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
            self._choose(was_running)
            claims.write_claim(self._layout, self._settings)
        save(self._layout.settings, self._settings)

    def _choose(self, was_running: bool) -> None:
        if not was_running:
            known = claims.read_claims(self._machine.run_root)
            own = known.pop(self._settings.name, None)
            # What is left of a crash of this very cluster is its own to take over.
            in_use = claims.networks_in_use(_ROUTES.read_text()) - ({own.settings.network} if own else set())
            taken = {claim.settings.network for claim in known.values()} | in_use
            self._settings = claims.choose_network(self._settings, taken)
            if self._settings.store == "etcd":
                self._settings = replace(self._settings, etcd_port=free_port_pair(self._settings.etcd_port))

    def _place(self) -> Place:
        tracking = cgroups.choose_tracking(cgroups.read_hierarchies())
        return Place(self._layout, self._settings, str(tracking.root), self._machine.proxy_url)

    def _ensure_certificates(self) -> None:
        Pki(self._layout, self._settings, self._clock).ensure()

    async def _start_nodes_runtime(self, zygote: ZygoteClient, place: Place) -> None:
        await zygote.start(components.registry_proxy(place))
        for node in self._settings.nodes:
            await network.ensure_node(self._layout, self._settings, node)
            self._write_node_files(node)
            await zygote.start(components.runtime(place, node))

    def _write_node_files(self, node: str) -> None:
        files = self._layout.node(node)
        for path in (files.manifests, files.pod_logs, files.registries, files.cni_bin, files.cni_conf, files.cni_state):
            path.mkdir(parents=True, exist_ok=True)
        file_system = mounts.parse_file_system(Path("/proc/self/mountinfo").read_text(), files.home)
        options = containerd.ContainerdOptions(
            sandbox_image=PAUSE,
            can_lower_oom_score=kernel.has_capability(kernel.CAP_SYS_RESOURCE),
            snapshotter=containerd.choose_snapshotter(file_system),
        )
        write_atomic(files.containerd_config, containerd.render_config(files, options), mode=0o644)

    async def _start_control_plane(self, zygote: ZygoteClient, place: Place) -> None:
        self._layout.store.mkdir(parents=True, exist_ok=True, mode=0o700)
        for spec in components.store(place):
            self._progress.step("starting etcd")
            await zygote.start(spec)
            await self._wait_for_port(spec, _ETCD_TIMEOUT_S)
        self._progress.step("starting the API server")
        await zygote.start(components.apiserver(place))
        later = [*components.control_plane(place), *self._all_agents(place)]
        async with asyncio.TaskGroup() as tasks:
            # The zygote imports what it forks next while the API server starts on the other core.
            tasks.create_task(zygote.preload([spec.module for spec in later if spec.module]), name="imports")
            tasks.create_task(self._wait_for_apiserver(), name="API server")
        self._progress.step("starting controllers, scheduler and DNS")
        for spec in components.control_plane(place):
            await zygote.start(spec)

    def _all_agents(self, place: Place) -> list[ChildSpec]:
        return [spec for node in self._settings.nodes for spec in components.agents(place, node)]

    async def _load_images(self, archives: Sequence[Path]) -> None:
        for node in self._settings.nodes:
            files = self._layout.node(node)
            self._progress.step(f"starting containerd on {node}")
            await readiness.wait_until(
                functools.partial(readiness.is_serving, files.containerd_socket),
                what=f"containerd of {node}",
                timeout_s=_RUNTIME_TIMEOUT_S,
                clock=self._clock,
                log=self._layout.log(f"containerd-{node}"),
            )
            await loading.ensure_images(files, archives)

    async def _start_agents(self, zygote: ZygoteClient, place: Place) -> None:
        self._progress.step("starting kubelet, kube-proxy and CNI")
        for spec in self._all_agents(place):
            await zygote.start(spec)

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

    async def _wait_for_nodes(self, since: datetime | None) -> None:
        api = api_of(self._layout, self._settings)
        for node in self._settings.nodes:
            await readiness.wait_until(
                functools.partial(is_node_ready, api, node, since=since),
                what=f"node {node}",
                timeout_s=_NODE_TIMEOUT_S,
                clock=self._clock,
                log=self._layout.log(f"kubelet-{node}"),
                step_s=0.05,
            )


def api_of(layout: Layout, settings: Settings) -> Api:
    """How to reach the cluster's API server from this machine, as its administrator."""
    pki = layout.pki
    return Api("127.0.0.1", settings.ports.apiserver, pki / "ca.crt", pki / "admin.crt", pki / "admin.key")


async def is_node_ready(api: Api, name: str, *, since: datetime | None = None) -> bool:
    """Whether the node has the condition Ready with status True, and has renewed its lease since then.

    The store still holds the Ready of the last start: only a heartbeat says that the kubelet of this one is there.
    """
    if since is not None:
        lease = await api.get_json(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}")
        if lease is None or not is_renewed(lease, since):
            return False
    node = await api.get_json(f"/api/v1/nodes/{name}")
    conditions = node.get("status", {}).get("conditions") or [] if node else []
    return any(condition.get("type") == "Ready" and condition.get("status") == "True" for condition in conditions)


def is_renewed(lease: Mapping[str, Any], since: datetime) -> bool:
    """Whether a Lease, as JSON, was renewed at or after that time."""
    try:
        return datetime.fromisoformat(lease["spec"]["renewTime"]) >= since
    except (KeyError, TypeError, ValueError):
        return False


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What to tell of several errors: the first ClusterError, or the first at all."""
    matching = group.subgroup(ClusterError) or group
    error: BaseException = matching
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
