"""Watches the heartbeats of nodes, and says by conditions and taints what is wrong with them.

A heartbeat is a change of the node's Lease or of its status, timed by our own clock: clocks of nodes may be wrong. What
a node says of itself takes effect with the event that brings it; only silence needs a timer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from tiphys.api.coordination.v1 import coordination_pb2
from tiphys.api.core.v1 import node_pb2, pod_pb2
from tiphys_apimachinery.codec.json_codec import to_json
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.meta import find_condition, is_being_deleted, time_now
from tiphys_client.controller import RequeueAfter
from tiphys_component.log import get_logger
from tiphys_controller_manager.controllers.node_lifecycle.plan import (
    Census,
    Rates,
    eviction_rate,
    has_no_execute,
    heartbeat_of,
    mark_unknown,
    no_execute_key,
    ready_status,
    taints_for,
)
from tiphys_controller_manager.frame import Context, Watch, own_key
from tiphys_controller_manager.nodes import REGION_LABEL, zone_of
from tiphys_controller_manager.pods import NODE_INDEX

LEASE_NAMESPACE: Final = "kube-node-lease"


@dataclass(slots=True)
class _Health:
    """What was heard of one node. Times are the clock's monotonic seconds."""

    heartbeat: tuple[int, int]
    heard_at: float


class NodeLifecycleController:
    """Keys are names of nodes."""

    def __init__(self, context: Context) -> None:
        options = context.options
        self._client = context.client
        self._clock = context.clock
        self._events = context.events
        self._grace_s = options.node_monitor_grace_period_s
        self._startup_grace_s = options.node_startup_grace_period_s
        self._rates = Rates(
            options.node_eviction_rate,
            options.secondary_node_eviction_rate,
            options.large_cluster_size_threshold,
        )
        self._nodes = context.informers.of(node_pb2.Node)
        self._leases = context.informers.of(coordination_pb2.Lease)
        self._pods = context.informers.of(pod_pb2.Pod)
        self._health: dict[str, _Health] = {}
        self._census = Census(options.unhealthy_zone_threshold)
        # For each zone, when the next node may lose its pods.
        self._next_eviction: dict[str, float] = {}
        self._metrics = context.metrics.nodes
        context.metrics.registry.collector(self._zones)
        self._log = get_logger("node-lifecycle-controller")

    def watches(self) -> Iterable[Watch]:
        """Nodes, and their leases."""
        return (Watch(node_pb2.Node, self._node_keys), Watch(coordination_pb2.Lease, self._lease_keys))

    def first_keys(self) -> Iterable[str]:
        """None: every node is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Bring one node's conditions and taints up to date. Raises errors of the API."""
        node = self._nodes.get(key)
        health = self._health.get(key)
        if node is None or health is None or is_being_deleted(node):
            return None
        began = self._clock.monotonic()
        try:
            return await self._look(node, health)
        finally:
            self._metrics.health_seconds.observe(self._clock.monotonic() - began)

    async def _look(self, node: node_pb2.Node, health: _Health) -> RequeueAfter | None:
        key = node.metadata.name
        grace_s = self._grace_s if ready_status(node) else self._startup_grace_s
        silent_s = self._clock.monotonic() - health.heard_at
        if silent_s >= grace_s and mark_unknown(node, time_now(self._clock)):
            node = await self._client.update_status(node)
            self._log.warning("node is silent", node=key, silent_s=round(silent_s, 1))
            self._events.event(node, "Normal", "NodeNotReady", f"Node {key} status is now: NodeNotReady")
        wait_s = await self._taint(node)
        if ready_status(node) == "Unknown":
            await self._mark_pods(key)
        waits = [wait_s] if wait_s is not None else []
        if silent_s < grace_s:
            waits.append(grace_s - silent_s)
        return RequeueAfter(min(waits)) if waits else None

    def _zones(self) -> Iterable[Metric]:
        """The zones as they are. Source: pkg/controller/nodelifecycle/metrics.go."""
        size = GaugeMetricFamily("node_collector_zone_size", "Nodes of each zone.", labels=("zone",))
        health = GaugeMetricFamily("node_collector_zone_health", "Percentage of ready nodes.", labels=("zone",))
        lost = GaugeMetricFamily("node_collector_unhealthy_nodes_in_zone", "Nodes not ready.", labels=("zone",))
        for zone, (ready, silent) in self._census.counts().items():
            label = (_zone_label(zone),)
            size.add_metric(label, ready + silent)
            health.add_metric(label, 100.0 * ready / (ready + silent))
            lost.add_metric(label, silent)
        yield from (size, health, lost)

    async def _taint(self, node: node_pb2.Node) -> float | None:
        """Write the taints; seconds until a NoExecute taint that must wait its turn may come, None if none must."""
        execute, wait_s = self._execute_taint(node)
        taints = taints_for(node, execute=execute, now=time_now(self._clock))
        if taints is not None:
            metadata = node.metadata
            patch = {
                "metadata": {"uid": metadata.uid, "resourceVersion": metadata.resourceVersion},
                "spec": {"taints": [to_json(taint) for taint in taints] or None},
            }
            await self._client.patch(node_pb2.Node, metadata.name, "", patch)
            self._log.info("tainted", node=metadata.name, taints=[f"{item.key}:{item.effect}" for item in taints])
        return wait_s

    def _execute_taint(self, node: node_pb2.Node) -> tuple[str, float | None]:
        """The NoExecute taint that the node gets now, and how long one that it should get must wait."""
        wanted = no_execute_key(node)
        if not wanted or self._census.is_all_lost():
            return "", None
        if any(has_no_execute(node, taint.key) for taint in node.spec.taints):
            # It loses its pods already; only the reason may be another now.
            return wanted, None
        zone = self._census.zone(node.metadata.name)
        rate = eviction_rate(self._census.state(zone), self._census.size(zone), self._rates)
        if rate <= 0:
            return "", self._grace_s
        now = self._clock.monotonic()
        due = self._next_eviction.get(zone, now)
        if due > now:
            return "", due - now
        self._next_eviction[zone] = now + 1.0 / rate
        self._metrics.evictions.labels(_zone_label(zone)).inc()
        return wanted, None

    async def _mark_pods(self, node: str) -> None:
        """Pods of a node that does not answer are not ready, whatever its kubelet said last."""
        for key, view in self._pods.store.projections_by_index(NODE_INDEX, node):
            pod = self._pods.get(key) if view.is_ready else None
            if pod is None:
                continue
            condition: Any = find_condition(pod.status.conditions, "Ready")
            condition.status = "False"
            condition.lastTransitionTime.CopyFrom(time_now(self._clock))
            try:
                await self._client.update_status(pod)
            except NotFound:
                continue
            self._events.event(pod, "Warning", "NodeNotReady", "Node is not ready")

    def _node_keys(self, old: Any, new: Any) -> Iterable[str]:
        (key,) = own_key(old, new)
        before = self._census.states()
        if new is None:
            self._health.pop(key, None)
            self._census.drop(key)
        else:
            heartbeat = heartbeat_of(new)
            known = self._health.get(key)
            if known is None or known.heartbeat != heartbeat:
                self._health[key] = _Health(heartbeat, self._clock.monotonic())
            zone = f"{new.metadata.labels.get(REGION_LABEL, '')}:{zone_of(new)}"
            self._census.put(key, zone, is_ready=ready_status(new) == "True")
        if self._census.states() == before:
            return (key,)
        # Another state of a zone may let the pods of its lost nodes be evicted, or no longer.
        return (key, *self._census.lost())

    def _lease_keys(self, old: Any, new: Any) -> Iterable[str]:
        if new is None or new.metadata.namespace != LEASE_NAMESPACE:
            return ()
        health = self._health.get(new.metadata.name)
        if health is not None and (old is None or old.spec.renewTime != new.spec.renewTime):
            health.heard_at = self._clock.monotonic()
        # The timer is running: it will see this heartbeat and wait on.
        return ()


def _zone_label(zone: str) -> str:
    """A zone as upstream's metrics name it: region and zone with a zero between; empty where nodes have neither."""
    region, _, name = zone.partition(":")
    return f"{region}:\x00:{name}" if region or name else ""
