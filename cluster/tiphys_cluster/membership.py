"""Nodes that come and go while the cluster runs.

Each step ensures, as in `up`: a node whose addition broke off is completed by `up` or taken away by a removal, and a
removal that broke off is done again.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tiphys_cluster import cgroups, claims
from tiphys_cluster.api import Api, api_of
from tiphys_cluster.choices import Machine, check_devices
from tiphys_cluster.components import Place
from tiphys_cluster.control import ZygoteClient, read_zygote
from tiphys_cluster.errors import ClusterError, NotRunningError, first_error
from tiphys_cluster.layout import Layout, check_node_name
from tiphys_cluster.nodes import Nodes
from tiphys_cluster.pki import Pki
from tiphys_cluster.progress import Progress
from tiphys_cluster.settings import Settings, save
from tiphys_component.clock import Clock
from tiphys_component.proc import to_thread

DRAIN_TIMEOUT_S = 35.0
_STEP_S = 0.1
_MERGE_PATCH = "application/merge-patch+json"
_MIRROR = "kubernetes.io/config.mirror"
_HTTP_OK = 200
_HTTP_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class PodName:
    """A pod of the node. stays is said of those that come back as long as the node is there, and end with it."""

    namespace: str
    name: str
    stays: bool

    @property
    def path(self) -> str:
        """Where the API server has it."""
        return f"/api/v1/namespaces/{quote(self.namespace)}/pods/{quote(self.name)}"


def read_pods(pods: Iterable[dict[str, Any]]) -> list[PodName]:
    """The pods of a list, as JSON: static ones and those of DaemonSets stay, as with `kubectl drain`."""
    found = []
    for pod in pods:
        metadata = pod.get("metadata", {})
        owners = {owner.get("kind") for owner in metadata.get("ownerReferences") or ()}
        stays = "DaemonSet" in owners or _MIRROR in (metadata.get("annotations") or {})
        found.append(PodName(metadata["namespace"], metadata["name"], stays))
    return found


class Membership:
    """Adds nodes to a running cluster and removes them. Raises NotRunningError when it does not run."""

    def __init__(self, layout: Layout, *, machine: Machine, clock: Clock, progress: Progress) -> None:
        claim = claims.read_claims(layout.run_root).get(layout.name)
        if claim is None or read_zygote(layout) is None:
            raise NotRunningError(
                f"cluster {layout.name!r} is not running", f"Start it: tiphys up --name {layout.name}"
            )
        self._layout = layout
        self._settings = claim.settings
        self._machine = machine
        self._clock = clock
        self._progress = progress

    async def add(self, name: str | None, *, devices: str = "") -> str:
        """Start another node and wait until it is Ready; its name. Raises ClusterError."""
        name = check_node_name(name or self._settings.free_node_name())
        with self._locked():
            began = self._clock.now()
            self._keep(self._settings.with_node(name, devices=check_devices(devices)))
            await to_thread(Pki(self._layout, self._settings, self._clock).ensure)
            async with self._nodes() as nodes:
                self._progress.step(f"starting containerd on {name}")
                await nodes.start_runtime(name)
                await nodes.load_images(name)
                self._progress.step(f"starting the agents of {name}")
                await nodes.start_agents(name)
                self._progress.step(f"waiting for {name}")
                await nodes.wait_ready(name, since=began)
                await nodes.start_extensions(name)
        return name

    async def remove(self, name: str, *, drain_timeout_s: float = DRAIN_TIMEOUT_S) -> None:
        """Move a node's pods off, stop it and take away every trace of it. Raises ClusterError.

        Pods have the time of their own grace period, at most drain_timeout_s; then they end with the node.
        """
        self._check_removable(name)
        api = api_of(self._layout, self._settings)
        with self._locked():
            self._progress.step(f"moving the pods off {name}")
            await self._cordon(api, name)
            await self._drain(api, name, drain_timeout_s)
            async with self._nodes() as nodes:
                self._progress.step(f"stopping {name}")
                await nodes.stop(name)
                await self._delete_objects(api, name)
                self._progress.step(f"removing the network, mounts and files of {name}")
                await nodes.remove(name)
            self._keep(self._settings.without_node(name))

    def _check_removable(self, name: str) -> None:
        if name not in self._settings.nodes:
            raise ClusterError(
                f"cluster {self._settings.name!r} has no node {name!r}", f"It has {', '.join(self._settings.nodes)}."
            )
        if len(self._settings.nodes) == 1:
            raise ClusterError(f"{name} is the cluster's last node", "To stop the cluster: tiphys down")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with claims.cluster_lock(self._layout):
                # As it is now: another command may have ended since this one began.
                self._settings = claims.read_claims(self._layout.run_root)[self._layout.name].settings
                yield
        except BaseExceptionGroup as group:
            raise first_error(group) from group

    def _keep(self, settings: Settings) -> None:
        self._settings = settings
        with claims.machine_lock(self._layout.run_root):
            claims.write_claim(self._layout, settings)
        save(self._layout.settings, settings)

    @contextlib.asynccontextmanager
    async def _nodes(self) -> AsyncIterator[Nodes]:
        tracking = cgroups.choose_tracking(cgroups.read_hierarchies())
        place = Place(self._layout, self._settings, str(tracking.root), self._machine.proxy_url)
        async with await ZygoteClient.connect(self._layout.zygote_socket) as zygote:
            yield Nodes(place, zygote, clock=self._clock)

    async def _cordon(self, api: Api, name: str) -> None:
        patch = {"spec": {"unschedulable": True}}
        code, answer = await api.ask("PATCH", f"/api/v1/nodes/{name}", patch, content_type=_MERGE_PATCH)
        _check(code, answer, f"cordon {name}")

    async def _drain(self, api: Api, name: str, timeout_s: float) -> None:
        deadline = self._clock.monotonic() + timeout_s
        for pod in await self._pods(api, name):
            if not pod.stays:
                await self._delete(api, pod.path)
        while leaving := [pod.name for pod in await self._pods(api, name) if not pod.stays]:
            if self._clock.monotonic() > deadline:
                self._progress.note(f"not gone within {timeout_s:g} s, ended with the node: {', '.join(leaving)}")
                return
            await self._clock.sleep(_STEP_S)

    async def _delete_objects(self, api: Api, name: str) -> None:
        # The Node first: as long as it is there, controllers would put pods on it again.
        await self._delete(api, f"/api/v1/nodes/{name}")
        for pod in await self._pods(api, name):
            await self._delete(api, f"{pod.path}?gracePeriodSeconds=0")

    async def _pods(self, api: Api, name: str) -> list[PodName]:
        code, answer = await api.ask("GET", f"/api/v1/pods?fieldSelector=spec.nodeName%3D{name}")
        _check(code, answer, f"list the pods of {name}")
        return read_pods(answer.get("items") or ())

    async def _delete(self, api: Api, path: str) -> None:
        code, answer = await api.ask("DELETE", path)
        _check(code, answer, f"delete {path}")


def _check(code: int, answer: dict[str, Any], what: str) -> None:
    # What is gone already is as it should be.
    if code not in (_HTTP_OK, _HTTP_NOT_FOUND):
        raise ClusterError(f"cannot {what}: {answer.get('message', code)}", "Try again, or see `tiphys status`.")
