"""Removes pods that nobody else will: of nodes that are gone or off, never scheduled, or finished in great number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tiphys.api.core.v1 import node_pb2, pod_pb2
from tiphys_apimachinery.errors import APIError, NotFound
from tiphys_apimachinery.meta import is_being_deleted
from tiphys_client.controller import RequeueAfter
from tiphys_component.log import get_logger
from tiphys_controller_manager.controllers.pod_gc.plan import (
    on_missing_nodes,
    out_of_service,
    terminated_beyond,
    unscheduled_ending,
)
from tiphys_controller_manager.disruption import PodEnder
from tiphys_controller_manager.frame import Context, Watch
from tiphys_controller_manager.nodes import is_ready
from tiphys_controller_manager.pods import PodView
from tiphys_controller_manager.taints import OUT_OF_SERVICE

# Source: gc_controller.go, gcCheckPeriod and quarantineTime.
_PERIOD_S: Final = 20.0
_QUARANTINE_S: Final = 40.0
_ALL: Final = "all"


class PodGarbageCollector:
    """Its one key stands for all pods."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._clock = context.clock
        self._ender = PodEnder(context.client, context.clock)
        self._queue = context.queue
        self._threshold = context.options.terminated_pod_gc_threshold
        self._pods = context.informers.of(pod_pb2.Pod)
        self._nodes = context.informers.of(node_pb2.Node)
        # Nodes that pods name and that are not there, and since when by the monotonic clock.
        self._missing: dict[str, float] = {}
        # Nodes that are off, by their taint, and do not say otherwise.
        self._off: set[str] = set()
        self._metrics = context.metrics
        self._log = get_logger("pod-garbage-collector-controller")

    def watches(self) -> Iterable[Watch]:
        """What does not wait for the next round: the end of a node, one that is off, and pods that end on such."""
        return Watch(node_pb2.Node, self._node_keys), Watch(pod_pb2.Pod, self._pod_keys)

    def first_keys(self) -> Iterable[str]:
        """The first round."""
        return (_ALL,)

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """One round. Raises errors of the API."""
        pods: list[PodView] = [pod for _, pod in self._pods.store.projections()]
        for pod in terminated_beyond(pods, self._threshold):
            await self._end(pod, "PodGC: finished pods beyond the threshold", why="terminated")
        for pod in unscheduled_ending(pods):
            await self._end(pod, "PodGC: pod was never scheduled", why="unscheduled")
        for pod in out_of_service(pods, self._off):
            await self._end(pod, "PodGC: node is out of service", why="out-of-service")
        await self._end_orphans(on_missing_nodes(pods, set(self._nodes.keys())))
        return RequeueAfter(_PERIOD_S)

    async def _end_orphans(self, by_node: dict[str, list[PodView]]) -> None:
        """A node must be missing for a while, and by the server's own word: our view of nodes may be the older one."""
        now = self._clock.monotonic()
        self._missing = {node: self._missing.get(node, now) for node in by_node}
        for node, pods in by_node.items():
            left_s = self._missing[node] + _QUARANTINE_S - now
            if left_s > 0:
                self._queue.add_after(_ALL, left_s)
            elif await self._is_gone(node):
                for pod in pods:
                    await self._end(pod, "PodGC: node no longer exists", why="orphaned")

    async def _is_gone(self, node: str) -> bool:
        try:
            await self._client.get(node_pb2.Node, node)
        except NotFound:
            return True
        return False

    async def _end(self, pod: PodView, message: str, *, why: str) -> None:
        """why is upstream's word for it, which metrics are labelled by."""
        try:
            was_there = await self._ender.end(pod, "DeletionByPodGC", message, force=True)
        except APIError:
            self._metrics.pods_not_removed.labels(pod.namespace, why).inc()
            raise
        if was_there:
            self._metrics.pods_removed.labels(pod.namespace, why).inc()
            self._log.info("pod removed", pod=pod.key, node=pod.node, reason=message)

    def _node_keys(self, old: Any, new: Any) -> Iterable[str]:
        if new is None:
            self._off.discard(old.metadata.name)
            return (_ALL,)
        name = new.metadata.name
        if not _is_off(new):
            self._off.discard(name)
            return ()
        if name in self._off:
            return ()
        self._off.add(name)
        return (_ALL,)

    def _pod_keys(self, old: Any, new: Any) -> Iterable[str]:
        """A pod that begins to end where nobody will end it; all else waits for the next round."""
        if not self._off or new is None or new.spec.nodeName not in self._off or not is_being_deleted(new):
            return ()
        return () if old is not None and is_being_deleted(old) else (_ALL,)


def _is_off(node: Any) -> bool:
    """Whether a node was said to be off and is not heard of: a taint that was forgotten must not end its pods."""
    return not is_ready(node) and any(taint.key == OUT_OF_SERVICE for taint in node.spec.taints)
