"""The nodes of a running cluster: each brought up from whatever of it stands, and taken away without a trace.

Used by `up` for all nodes side by side, and by `node add` and `node remove` for one.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import signal
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tiphys_cluster import cgroups, components, containerd, kernel, mounts, network, readiness
from tiphys_cluster.api import Api, api_of
from tiphys_cluster.components import Place
from tiphys_cluster.control import ZygoteClient
from tiphys_cluster.errors import ClusterError
from tiphys_cluster.images import loading
from tiphys_cluster.images.builtin import PAUSE
from tiphys_cluster.loops import detach_below
from tiphys_cluster.network import Wiring
from tiphys_cluster.processes import ProcessId, processes_in_namespaces
from tiphys_cluster.settings import write_atomic
from tiphys_component.clock import Clock
from tiphys_component.proc import to_thread

_RUNTIME_TIMEOUT_S = 30.0
_NODE_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
_STEP_S = 0.02


class Nodes:
    """The nodes of one cluster, through its zygote. Methods for different nodes may run side by side."""

    def __init__(self, place: Place, zygote: ZygoteClient, *, clock: Clock) -> None:
        self._place = place
        self._layout = place.layout
        self._zygote = zygote
        self._clock = clock

    async def start_runtime(self, node: str) -> None:
        """Have the node's namespaces and its containerd, up to its socket. Raises ClusterError."""
        stood = await network.look_at_node(self._layout, self._place.settings, node)
        if stood is Wiring.LOST:
            # What still runs in namespaces that nobody can enter any more would go on serving under the node's name.
            await self.stop(node)
        await network.ensure_node(self._layout, self._place.settings, node)
        if stood is Wiring.UNPLUGGED:
            for spec in components.wired_to_switch(self._place, node):
                await self._zygote.call("stop", name=spec.name)
        self._write_files(node)
        await self._zygote.start(components.runtime(self._place, node))
        await readiness.wait_until(
            functools.partial(readiness.is_serving, self._layout.node(node).containerd_socket),
            what=f"containerd of {node}",
            timeout_s=_RUNTIME_TIMEOUT_S,
            clock=self._clock,
            log=self._layout.log(f"containerd-{node}"),
        )

    def _write_files(self, node: str) -> None:
        files = self._layout.node(node)
        for path in (files.manifests, files.pod_logs, files.registries, files.cni_bin, files.cni_conf, files.cni_state):
            path.mkdir(parents=True, exist_ok=True)
        file_system = mounts.parse_file_system(Path("/proc/self/mountinfo").read_text(), files.home)
        options = containerd.ContainerdOptions(
            sandbox_image=PAUSE,
            can_lower_oom_score=kernel.has_capability(kernel.CAP_SYS_RESOURCE),
            snapshotter=containerd.choose_snapshotter(file_system),
        )
        if self._place.settings.cni_conf:
            write_atomic(files.cni_template, self._place.settings.cni_conf, mode=0o644)
        write_atomic(files.containerd_config, containerd.render_config(files, options), mode=0o644)

    async def load_images(self, node: str) -> None:
        """Have the images of the pool on the node. Raises ClusterError."""
        await loading.ensure_images(self._layout.images, self._layout.node(node))

    async def start_agents(self, node: str) -> None:
        """Have the node's own processes; the API server answers already."""
        for spec in components.agents(self._place, node):
            await self._zygote.start(spec)

    async def start_extensions(self, node: str) -> None:
        """Have what registers with the node's kubelet; returns before it is there."""
        for spec in components.extensions(self._place, node):
            await self._zygote.schedule(spec)

    async def wait_ready(self, node: str, *, since: datetime | None) -> None:
        """Return when the node is Ready, by a heartbeat since then. Raises ClusterError."""
        api = api_of(self._layout, self._place.settings)
        await readiness.wait_until(
            functools.partial(is_node_ready, api, node, since=since),
            what=f"node {node}",
            timeout_s=_NODE_TIMEOUT_S,
            clock=self._clock,
            log=self._layout.log(f"kubelet-{node}"),
            step_s=0.05,
        )

    async def stop(self, node: str) -> None:
        """End all that runs on the node: its processes, its containers, whoever is in its namespaces. ClusterError."""
        for child in await self._children(node):
            await self._zygote.call("stop", name=child["name"])
        deadline = self._clock.monotonic() + _STOP_TIMEOUT_S
        while await self._children(node):
            await self._pause(deadline, f"processes of node {node} do not end")
        while self._kill_rest(node):
            await self._pause(deadline, f"containers of node {node} do not end")
        while left := [tree for tree in self._cgroups(node) if tree.exists() and not cgroups.remove_tree(tree)]:
            await self._pause(deadline, f"cgroups can't be removed: {', '.join(map(str, left))}")

    async def remove(self, node: str) -> None:
        """Take a stopped node's wiring and files away; its data too. Raises ClusterError."""
        files = self._layout.node(node)
        await network.remove_node(self._layout, self._place.settings, node)
        detach_below(files.home)
        logs = [Path(spec.log) for spec in components.of_node(self._place, node)]
        await to_thread(_delete, logs, [files.run, files.home])

    async def _children(self, node: str) -> list[dict[str, Any]]:
        return [child for child in await self._zygote.children() if child["node"] == node]

    async def _pause(self, deadline: float, problem: str) -> None:
        if self._clock.monotonic() > deadline:
            raise ClusterError(problem, "Look at them with ps, then try again.")
        await self._clock.sleep(_STEP_S)

    def _kill_rest(self, node: str) -> set[int]:
        """Kill what is left, once; the processes that were there."""
        left: set[int] = set()
        for tree in self._cgroups(node):
            left |= cgroups.kill_tree(tree)
        for process in self._in_namespaces(node):
            process.send(signal.SIGKILL)
            left.add(process.pid)
        return left

    def _in_namespaces(self, node: str) -> list[ProcessId]:
        files = self._layout.node(node)
        found: list[ProcessId] = []
        for path, kind in ((files.netns, "net"), (files.mntns, "mnt")):
            # A file on which no namespace is mounted is an ordinary one, whose inode says nothing.
            if network.is_held(path):
                found += processes_in_namespaces({path.stat().st_ino}, kind)
        return found

    def _cgroups(self, node: str) -> list[Path]:
        """Of its pods in every hierarchy, and of its processes where they are tracked."""
        pods = [tree / node for tree in cgroups.trees(self._layout.cgroup)]
        return pods + [Path(spec.cgroup) for spec in components.of_node(self._place, node)]


def _delete(files: Sequence[Path], directories: Sequence[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


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
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return datetime.fromisoformat(lease["spec"]["renewTime"]) >= since
    return False
