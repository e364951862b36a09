"""Evicts pods from nodes that have taints with effect NoExecute, when the pods' tolerations are used up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tiphys.api.core.v1 import node_pb2, pod_pb2
from tiphys_client.controller import RequeueAfter
from tiphys_component.log import get_logger
from tiphys_controller_manager.disruption import PodEnder
from tiphys_controller_manager.frame import Context, Watch, own_key
from tiphys_controller_manager.pods import NODE_INDEX, seconds
from tiphys_controller_manager.taints import NO_EXECUTE, Taint, eviction_due


class TaintEvictionController:
    """Keys are pods, namespace/name."""

    def __init__(self, context: Context) -> None:
        self._clock = context.clock
        self._ender = PodEnder(context.client, context.clock)
        self._events = context.events
        self._pods = context.informers.of(pod_pb2.Pod)
        self._nodes = context.informers.of(node_pb2.Node)
        # The NoExecute taints of each node that has any.
        self._taints: dict[str, tuple[Taint, ...]] = {}
        self._metrics = context.metrics.nodes
        self._log = get_logger("taint-eviction-controller")

    def watches(self) -> Iterable[Watch]:
        """Nodes for their taints, and the pods on those that have some."""
        return (Watch(node_pb2.Node, self._node_keys), Watch(pod_pb2.Pod, self._pod_keys))

    def first_keys(self) -> Iterable[str]:
        """Every pod on a node with such taints: pods and nodes may have come in any order."""
        return [key for node in self._taints for key, _ in self._pods.store.projections_by_index(NODE_INDEX, node)]

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Evict one pod if its time is up. Raises errors of the API."""
        pod = self._pods.projection(key)
        if pod is None or pod.is_deleting:
            return None
        due = eviction_due(pod.tolerations, self._taints.get(pod.node, ()))
        if due is None:
            return None
        left_s = due - self._clock.now().timestamp()
        if left_s > 0:
            return RequeueAfter(left_s)
        message = self._pods.get(key)
        if message is not None:
            self._events.event(message, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {key}")
        reason = "Taint manager: deleting due to NoExecute taint"
        if await self._ender.end(pod, "DeletionByTaintManager", reason):
            self._metrics.pod_deletions.inc()
            self._metrics.pod_deletion_delay.observe(max(0.0, -left_s))
            self._log.info("evicted", pod=key, node=pod.node)
        return None

    def _node_keys(self, old: Any, new: Any) -> Iterable[str]:
        name = (new if new is not None else old).metadata.name
        before = self._taints.get(name, ())
        after = self._read(new, before) if new is not None else ()
        if after:
            self._taints[name] = after
        else:
            self._taints.pop(name, None)
        if after == before:
            return ()
        return [key for key, _ in self._pods.store.projections_by_index(NODE_INDEX, name)]

    def _read(self, node: node_pb2.Node, before: tuple[Taint, ...]) -> tuple[Taint, ...]:
        """A taint that does not say since when it is there counts from when it was first seen."""
        known = {(taint.key, taint.value): taint.since for taint in before}
        now = self._clock.now().timestamp()
        return tuple(
            Taint(
                taint.key,
                taint.value,
                taint.effect,
                seconds(taint.timeAdded) or known.get((taint.key, taint.value), now),
            )
            for taint in node.spec.taints
            if taint.effect == NO_EXECUTE
        )

    def _pod_keys(self, old: Any, new: Any) -> Iterable[str]:
        return own_key(old, new) if new is not None and new.spec.nodeName in self._taints else ()
