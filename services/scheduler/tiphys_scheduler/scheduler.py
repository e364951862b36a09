"""The cycle: pop a pod, place it on the columns, assume it there, hand it to the binder."""

from __future__ import annotations

import asyncio
from typing import Protocol

from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.errors import NotFound
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_component.app import start_loop
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.metrics import Registry
from tiphys_scheduler.binder import Binder, Bound
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.framework.registry import EVENTS, profile
from tiphys_scheduler.framework.runtime import Framework
from tiphys_scheduler.framework.status import FitError
from tiphys_scheduler.plugins.volume_binding import VolumeBinding
from tiphys_scheduler.pod_info import PodInfo, pod_info
from tiphys_scheduler.refusals import Refusals
from tiphys_scheduler.scheduling_queue import SchedulingQueue, Waiting
from tiphys_scheduler.storage import follow_storage
from tiphys_scheduler.volume_binder import Pending, VolumeBinder
from tiphys_scheduler.volumes import StorageInformers, Volumes

_log = get_logger("scheduler")
# So many pods are placed before other tasks have their turn: some 10 ms.
_PODS_A_TURN = 100


class PodEvents(Protocol):
    """Tells users what happened to a pod."""

    def event(self, pod: PodInfo, kind: str, reason: str, message: str) -> None:
        """Records an Event on the pod; kind is Normal or Warning. Never waits."""
        ...


class Scheduler:
    """Places every pod of its name that has no node. Only `run` places; handlers of informers only take notes."""

    def __init__(
        self,
        client: Client,
        nodes: Informer[Node, object],
        pods: Informer[Pod, PodInfo],
        *,
        name: str,
        clock: Clock,
        events: PodEvents,
        registry: Registry,
        storage: StorageInformers,
    ) -> None:
        self._nodes, self._pods, self._storage = nodes, pods, storage
        self._name = name
        self._events = events
        self._volumes = Volumes()
        self._volume_binding = VolumeBinding(self._volumes)
        self.cache = Cache(Columns(), self._volumes)
        self.queue = SchedulingQueue(clock, EVENTS)
        self.framework = Framework(profile(self._volume_binding, self._volumes), self.cache.columns)
        self._binder = Binder(client, self._on_bound)
        self._volume_binder = VolumeBinder(client, storage, self._volumes, clock=clock, done=self._on_volumes)
        self._refusals = Refusals(client, clock)
        self._attempts = registry.counter("scheduler_schedule_attempts_total", "Tries to place a pod.", ("result",))
        registry.gauge_function("scheduler_pending_pods", "Pods that wait for a node.", lambda: len(self.queue))
        follow_storage(storage, self._volumes, self.queue, self._volume_binder)
        nodes.add_handler(self._on_node, lambda _, new: self._on_node(new), self._on_node_gone)
        pods.add_handler(self._on_pod, lambda _, new: self._on_pod(new), self._on_pod_gone)

    async def run(self) -> None:
        """Places pods until cancelled. Informers are run by the caller."""
        await self._nodes.wait_synced()
        await self._pods.wait_synced()
        for informer in self._storage.all():
            await informer.wait_synced()
        async with asyncio.TaskGroup() as group:
            start_loop(group, self.queue.run(), "scheduling queue")
            start_loop(group, self._binder.run(), "binder")
            start_loop(group, self._volume_binder.run(), "volume binder")
            start_loop(group, self._refusals.run(), "refusals")
            start_loop(group, self._cycle(), "scheduling cycle")

    async def _cycle(self) -> None:
        while True:
            await self.queue.wait()
            for _ in range(_PODS_A_TURN):
                waiting = self.queue.pop()
                if waiting is None:
                    break
                self.schedule_one(waiting)
            await asyncio.sleep(0)

    def schedule_one(self, waiting: Waiting) -> None:
        """Places one pod, or notes why it can't be placed."""
        pod = waiting.pod
        found = self.framework.place(pod)
        if isinstance(found, FitError):
            self._refuse(waiting, found)
            return
        self._attempts.labels("scheduled").inc()
        # Before the pod counts: a pod is no other user of its own claims.
        decisions = self._volume_binding.decide(pod, self.cache.columns, found.row) if pod.needs.claims else None
        self.cache.assume(pod, found.node)
        self.queue.remove(pod.key)
        if decisions is None or not decisions.claims:
            self._binder.add(waiting, found.node)
            return
        self._volumes.assume(decisions)
        self._volume_binder.add(waiting, decisions)

    def _refuse(self, waiting: Waiting, error: FitError) -> None:
        self._attempts.labels("unschedulable").inc()
        self.queue.refuse(waiting, error.plugins or frozenset(EVENTS))
        if waiting.pod.refusal != error.message:
            self._refusals.add(waiting.pod, error.message)
        self._events.event(waiting.pod, "Warning", "FailedScheduling", error.message)

    def _on_volumes(self, pending: Pending, fault: str) -> None:
        """The pod's volumes are bound, or will not be on this node."""
        pod, node = pending.waiting.pod, pending.decisions.node
        self._volumes.forget(pending.decisions)
        if not fault:
            self._binder.add(pending.waiting, node)
            return
        self._attempts.labels("error").inc()
        self.cache.forget(pod)
        message = f'running PreBind plugin "VolumeBinding": binding volumes: {fault}'
        _log.warning("volumes not bound", pod=pod.key, node=node, err=fault)
        self._events.event(pod, "Warning", "FailedScheduling", message)
        self._put_back(pending.waiting)

    def _drop_volumes(self, key: str) -> None:
        """A pod that is going needs no volumes: what was chosen for it is free again."""
        pending = self._volume_binder.drop(key)
        if pending is not None:
            self._volumes.forget(pending.decisions)
            self.cache.forget(pending.waiting.pod)

    def _on_bound(self, bound: Bound) -> None:
        pod = bound.waiting.pod
        if bound.error is None:
            message = f"Successfully assigned {pod.key} to {bound.node}"
            self._events.event(pod, "Normal", "Scheduled", message)
            return
        self._attempts.labels("error").inc()
        self.cache.forget(pod)
        if isinstance(bound.error, NotFound):
            return
        _log.warning("pod not bound", pod=pod.key, node=bound.node, err=str(bound.error))
        self._put_back(bound.waiting)

    def _put_back(self, waiting: Waiting) -> None:
        """To the queue again, unless the pod is gone, replaced or bound by another."""
        current = self._pods.projection(waiting.pod.key)
        if current is not None and current.uid == waiting.pod.uid and not current.node:
            self.queue.restore(waiting)

    def _on_node(self, node: Node) -> None:
        events = self.cache.set_node(node)
        if events:
            self.queue.move_on(events)

    def _on_node_gone(self, node: Node) -> None:
        self.cache.remove_node(node.metadata.name)

    def _on_pod(self, pod: Pod) -> None:
        info = self._pods.projection(f"{pod.metadata.namespace}/{pod.metadata.name}") or pod_info(pod)
        if info.node or info.is_finished:
            self.queue.remove(info.key)
            if self.cache.set_pod(info):
                self.queue.move_on(frozenset({Event.POD_DELETED}))
            return
        if info.scheduler_name != self._name or info.is_gated or info.is_deleting:
            self.queue.remove(info.key)
            self._drop_volumes(info.key)
            return
        if not self.cache.node_of(info.key):
            self.queue.add(info)

    def _on_pod_gone(self, pod: Pod) -> None:
        key = f"{pod.metadata.namespace}/{pod.metadata.name}"
        self.queue.remove(key)
        self._drop_volumes(key)
        if self.cache.remove_pod(key):
            self.queue.move_on(frozenset({Event.POD_DELETED}))
