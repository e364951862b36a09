"""Nodes with nothing in them: they register, beat, and say of their pods what a kubelet would, in its order.

A pod runs a moment after it is bound, is ready when it runs, and is gone a moment after it was told to go. How long one
runs, and how it ends, is on the pod, by the annotations below; without the first it runs for ever. A node may be cut
off, when its pods run on unseen, and may vanish with all that it runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from tiphys.api.coordination.v1 import coordination_pb2
from tiphys.api.core.v1 import node_pb2, pod_pb2
from tiphys_apimachinery.errors import AlreadyExists, APIError, Conflict, NotFound
from tiphys_apimachinery.meta import (
    find_condition,
    format_time,
    is_being_deleted,
    is_condition_true,
    micro_time_now,
    namespaced_name,
    time_now,
)
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_component.app import start_loop
from tiphys_component.clock import Clock

RUNS_FOR_S: Final = "simulation.tiphys.dev/runs-for-s"
EXITS_WITH: Final = "simulation.tiphys.dev/exits-with"
# Completion indexes, with commas between, that end with 1 whatever the others do.
FAILING_INDEXES: Final = "simulation.tiphys.dev/failing-indexes"
_INDEX: Final = "batch.kubernetes.io/job-completion-index"
_LEASES: Final = "kube-node-lease"
_AGAIN_S: Final = 1.0
# The exit code of what was told to go. Source: the kubelet, 128 and SIGKILL.
_KILLED: Final = 137
_Lease = coordination_pb2.Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast nodes are, in seconds; the first two are drawn between their bounds."""

    start_s: tuple[float, float] = (0.2, 2.0)
    stop_s: tuple[float, float] = (0.1, 3.0)
    heartbeat_s: float = 10.0


class _Life:
    """What a node knows of one pod."""

    def __init__(self, pod: pod_pb2.Pod, up: asyncio.Event) -> None:
        self.pod = pod
        # Set while the node is not cut off.
        self.up = up
        self.going = asyncio.Event()
        # What was said of it last while it runs; None before and after.
        self.status: Mapping[str, Any] | None = None
        self.is_telling = False


class HollowNodes:
    """All hollow nodes of a cluster. `running` has the pods that run, by namespace/name: never two of one name."""

    def __init__(self, client: Client, clock: Clock, rng: Random, pace: Pace) -> None:
        self.running: dict[str, set[str]] = {}
        self._client = client
        self._clock = clock
        self._rng = rng
        self._pace = pace
        self._nodes: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, set[asyncio.Task[None]]] = {}
        # Of each node, also while it is away.
        self._capacities: dict[str, dict[str, str]] = {}
        self._lives: dict[str, _Life] = {}
        self._group: asyncio.TaskGroup | None = None
        self._addresses = 0
        self._pods: Informer[pod_pb2.Pod, None] = Informer(client, pod_pb2.Pod, clock=clock, rng=rng)
        self._pods.add_handler(self._on_pod, lambda _, new: self._on_pod(new), self._on_gone)
        self._objects: Informer[node_pb2.Node, bool] = Informer(
            client, node_pb2.Node, clock=clock, rng=rng, projection=_is_given_up
        )
        self._leases: dict[str, _Lease] = {}

    async def run(self) -> None:
        """Be nodes until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            start_loop(group, self._pods.run(), "pods of hollow nodes")
            start_loop(group, self._objects.run(), "objects of hollow nodes")
            start_loop(group, self._beat(), "heartbeats of hollow nodes")

    # -- nodes

    async def add(self, name: str, *, labels: Mapping[str, str] | None = None, **capacity: str) -> None:
        """Register a node, ready; one that vanished comes back under its name with nothing running."""
        node = node_pb2.Node()
        node.metadata.name = name
        node.metadata.labels.update({"kubernetes.io/hostname": name, **(labels or {})})
        node.spec.podCIDR = ""
        made = await self._client.create(node)
        known = self._capacities.setdefault(name, {"cpu": "8", "memory": "32Gi", "pods": "110", **capacity})
        for resource, amount in known.items():
            made.status.capacity[resource].string = made.status.allocatable[resource].string = amount
        made.status.conditions.add(type="Ready", status="True", reason="KubeletReady").lastHeartbeatTime.CopyFrom(
            time_now(self._clock)
        )
        made.status.addresses.add(
            type="InternalIP", address=f"192.168.{len(self._nodes) // 250}.{len(self._nodes) % 250 + 1}"
        )
        await self._client.update_status(made)
        lease = _Lease()
        lease.metadata.name, lease.metadata.namespace = name, _LEASES
        lease.spec.holderIdentity, lease.spec.leaseDurationSeconds = name, 40
        lease.spec.renewTime.CopyFrom(micro_time_now(self._clock))
        with suppress(AlreadyExists):
            await self._client.create(lease)
        up = self._nodes[name] = asyncio.Event()
        self._tasks[name] = set()
        up.set()
        for pod in self._pods.list():
            # Bound to it before it was there.
            self._on_pod(pod)

    def pause(self, name: str) -> None:
        """Cut a node off: it beats no more and says nothing of its pods, which run on."""
        if name in self._nodes:
            self._nodes[name].clear()

    def resume(self, name: str) -> None:
        """Have a node go on where it was cut off."""
        if name in self._nodes:
            self._nodes[name].set()

    async def vanish(self, name: str) -> None:
        """The machine is gone with all that ran on it, and so is its object."""
        if self._nodes.pop(name, None) is None:
            return
        self._leases.pop(name, None)
        for task in self._tasks.pop(name):
            task.cancel()
        for uid, life in list(self._lives.items()):
            if life.pod.spec.nodeName == name:
                self._stopped(namespaced_name(life.pod), uid)
                del self._lives[uid]
        await self._client.delete(node_pb2.Node, name, absent_ok=True)

    def names(self) -> list[str]:
        """The nodes that are there, cut off or not."""
        return list(self._nodes)

    def pods(self) -> list[pod_pb2.Pod]:
        """All pods of the cluster, as the nodes know them."""
        return self._pods.list()

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(self._pace.heartbeat_s)
            for name, up in list(self._nodes.items()):
                if up.is_set():
                    with suppress(APIError):
                        await self._renew(name)

    async def _renew(self, name: str) -> None:
        lease = self._leases.pop(name, None) or await self._client.get(_Lease, name, _LEASES)
        lease.spec.renewTime.CopyFrom(micro_time_now(self._clock))
        self._leases[name] = await self._client.update(lease)
        if not self._objects.projection(name):
            return
        node = await self._client.get(node_pb2.Node, name)
        ready = find_condition(node.status.conditions, "Ready")
        if ready is not None and ready.status != "True":
            ready.status, ready.reason = "True", "KubeletReady"
            ready.lastHeartbeatTime.CopyFrom(time_now(self._clock))
            ready.lastTransitionTime.CopyFrom(time_now(self._clock))
            await self._client.update_status(node)

    # -- pods

    def _on_pod(self, pod: pod_pb2.Pod) -> None:
        node = pod.spec.nodeName
        if node not in self._nodes:
            return
        life = self._lives.get(pod.metadata.uid)
        if life is None:
            life = self._lives[pod.metadata.uid] = _Life(pod, self._nodes[node])
            self._start(node, self._live(life), f"pod {namespaced_name(pod)}")
        life.pod = pod
        if is_being_deleted(pod):
            life.going.set()
        elif life.status is not None and not life.is_telling and not is_condition_true(pod.status.conditions, "Ready"):
            # Somebody gave the node up meanwhile.
            life.is_telling = True
            self._start(node, self._tell_again(life), f"status of pod {namespaced_name(pod)}")

    def _start(self, node: str, work: Coroutine[Any, Any, None], name: str) -> None:
        assert self._group is not None, "handlers are called while run() runs"
        task = self._group.create_task(work, name=name)
        self._tasks[node].add(task)
        task.add_done_callback(self._tasks[node].discard)

    async def _tell_again(self, life: _Life) -> None:
        try:
            await life.up.wait()
            if life.status is not None:
                await self._tell(life, life.status)
        finally:
            life.is_telling = False

    def _on_gone(self, pod: pod_pb2.Pod) -> None:
        """Taken from the API by force, or after we said so: what runs ends all the same."""
        life = self._lives.get(pod.metadata.uid)
        if life is not None:
            life.going.set()

    async def _live(self, life: _Life) -> None:
        """Start, run, end, and say so at each step."""
        pod, slot, uid = life.pod, namespaced_name(life.pod), life.pod.metadata.uid
        up = life.up
        try:
            if pod.status.phase in ("Succeeded", "Failed"):
                await life.going.wait()
            elif not await self._goes_within(life, self._rng.uniform(*self._pace.start_s)):
                await up.wait()
                self.running.setdefault(slot, set()).add(uid)
                status = self._running_status(pod)
                await self._tell(life, status)
                life.status = status
                await self._work(life)
            await life.going.wait()
            life.status = None
            await self._clock.sleep(self._rng.uniform(*self._pace.stop_s))
            await up.wait()
            self._stopped(slot, uid)
            if life.pod.metadata.finalizers and life.pod.status.phase not in ("Succeeded", "Failed"):
                # Somebody waits to hear how it ended.
                await self._tell(life, self._ended_status(pod, _KILLED))
            await self._persist(lambda: self._remove(pod), up)
        finally:
            self._stopped(slot, uid)
            if self._lives.get(uid) is life:
                del self._lives[uid]

    async def _work(self, life: _Life) -> None:
        """Until the pod's work is done, if it ever is, or it was told to go."""
        length = life.pod.metadata.annotations.get(RUNS_FOR_S)
        if length is None or await self._goes_within(life, float(length)):
            return
        await life.up.wait()
        life.status = None
        self._stopped(namespaced_name(life.pod), life.pod.metadata.uid)
        await self._tell(life, self._ended_status(life.pod, _code(life.pod)))

    async def _goes_within(self, life: _Life, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await life.going.wait()
        except TimeoutError:
            return False
        return True

    def _stopped(self, slot: str, uid: str) -> None:
        there = self.running.get(slot, set())
        there.discard(uid)
        if not there:
            self.running.pop(slot, None)

    async def _tell(self, life: _Life, status: Mapping[str, Any]) -> None:
        pod = life.pod
        change = {"metadata": {"uid": pod.metadata.uid}, "status": status}

        async def patch() -> None:
            name, namespace = pod.metadata.name, pod.metadata.namespace
            await self._client.patch(pod_pb2.Pod, name, namespace, change, type="strategic", subresource="status")

        await self._persist(patch, life.up)

    async def _persist(self, call: Callable[[], Awaitable[None]], up: asyncio.Event) -> None:
        """Until it was heard, or there is nobody any more whom it is about."""
        while True:
            await up.wait()
            try:
                await call()
                return
            except (NotFound, Conflict):
                return
            except APIError:
                await self._clock.sleep(_AGAIN_S)

    async def _remove(self, pod: pod_pb2.Pod) -> None:
        metadata = pod.metadata
        await self._client.delete(
            pod_pb2.Pod, metadata.name, metadata.namespace, grace_period_s=0, preconditions_uid=metadata.uid
        )

    def _running_status(self, pod: pod_pb2.Pod) -> dict[str, Any]:
        self._addresses += 1
        high, low = divmod(self._addresses, 1 << 16)
        now = format_time(self._clock.now())
        return {
            "phase": "Running",
            "podIP": f"10.{64 + high % 64}.{low >> 8}.{low & 255}",
            "startTime": now,
            "conditions": _conditions(("Initialized", "ContainersReady", "Ready"), "True", now),
            "containerStatuses": _containers(pod, {"running": {"startedAt": now}}, is_ready=True),
        }

    def _ended_status(self, pod: pod_pb2.Pod, code: int) -> dict[str, Any]:
        now = format_time(self._clock.now())
        ended = {"exitCode": code, "finishedAt": now, "reason": "Error" if code else "Completed"}
        return {
            "phase": "Failed" if code else "Succeeded",
            "conditions": _conditions(("ContainersReady", "Ready"), "False", now),
            "containerStatuses": _containers(pod, {"terminated": ended}, is_ready=False),
        }


def _is_given_up(node: node_pb2.Node) -> bool:
    return not is_condition_true(node.status.conditions, "Ready")


def _code(pod: pod_pb2.Pod) -> int:
    """What a pod's work ends with."""
    annotations = pod.metadata.annotations
    if annotations.get(_INDEX, "none") in annotations.get(FAILING_INDEXES, "").split(","):
        return 1
    return int(annotations.get(EXITS_WITH, "0"))


def _conditions(kinds: Sequence[str], status: str, now: str) -> list[dict[str, str]]:
    return [{"type": kind, "status": status, "lastTransitionTime": now} for kind in kinds]


def _containers(pod: pod_pb2.Pod, state: Mapping[str, Any], *, is_ready: bool) -> list[dict[str, Any]]:
    return [
        {"name": one.name, "image": one.image, "imageID": "", "ready": is_ready, "restartCount": 0, "state": state}
        for one in pod.spec.containers
    ]
