"""Keeps the EndpointSlices of each Service that has a selector true to its pods."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tiphys.api.core.v1 import node_pb2, pod_pb2, service_pb2
from tiphys.api.discovery.v1 import discovery_pb2
from tiphys_apimachinery.errors import APIError
from tiphys_apimachinery.meta import is_being_deleted, join_key, namespaced_name
from tiphys_client.controller import RequeueAfter
from tiphys_controller_manager.backends import (
    SERVICE_INDEX,
    SERVICE_NAME,
    changed_backends,
    has_managed_backends,
    selector_of,
    services_of,
)
from tiphys_controller_manager.controllers.endpointslice.plan import (
    MANAGED_BY,
    MANAGER,
    plan_slices,
)
from tiphys_controller_manager.frame import Context, Watch, own_key
from tiphys_controller_manager.nodes import zone_of
from tiphys_controller_manager.pod_control import is_namespace_ending
from tiphys_controller_manager.pods import NAMESPACE_INDEX, PodView
from tiphys_controller_manager.slices import SlicePlan, SliceWriter

_LAG_S: Final = 1.0


class EndpointSliceController:
    """Reconciles one Service at a time; keys are namespace/name."""

    def __init__(self, context: Context) -> None:
        self._events = context.events
        self._limit = context.options.max_endpoints_per_slice
        self._services = context.informers.of(service_pb2.Service)
        self._slices = context.informers.of(discovery_pb2.EndpointSlice)
        self._pods = context.informers.of(pod_pb2.Pod)
        self._nodes = context.informers.of(node_pb2.Node)
        self._expectations = context.expectations(discovery_pb2.EndpointSlice)
        self._writer = SliceWriter(context.client, self._expectations)
        self._metrics = context.metrics.slices

    def watches(self) -> Iterable[Watch]:
        """Services, the pods they select, their slices, and the zones of nodes."""
        return (
            Watch(service_pb2.Service, own_key),
            Watch(pod_pb2.Pod, self._pod_keys),
            Watch(discovery_pb2.EndpointSlice, _slice_keys),
            Watch(node_pb2.Node, self._node_keys),
        )

    def first_keys(self) -> Iterable[str]:
        """None: every Service is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Bring the slices of one Service up to date. Raises errors of the API."""
        service = self._services.get(key)
        if service is None:
            # Its slices have no owner then: the garbage collector takes them.
            self._expectations.forget(key)
            return None
        if is_being_deleted(service) or not has_managed_backends(service):
            return None
        if not self._expectations.are_met(key):
            return RequeueAfter(_LAG_S)
        pods, known = self._backends(service), self._own_slices(service)
        plan = plan_slices(service, pods, self._zones(pods), known, limit=self._limit)
        try:
            await self._writer.write(key, plan)
            self._count(service, known, plan)
        except APIError as err:
            self._metrics.syncs.labels("error").inc()
            if not is_namespace_ending(err):
                message = f"Error updating Endpoint Slices for Service {key}: {err}"
                self._events.event(service, "Warning", "FailedToUpdateEndpointSlices", message)
                raise
        return None

    def _count(
        self, service: service_pb2.Service, known: Iterable[discovery_pb2.EndpointSlice], plan: SlicePlan
    ) -> None:
        metrics, changes = self._metrics, {"create": plan.create, "update": plan.update, "delete": plan.delete}
        metrics.syncs.labels("success").inc()
        if any(changes.values()):
            replaced = {item.metadata.name for item in (*plan.update, *plan.delete)}
            before = _addresses(item for item in known if item.metadata.name in replaced)
            after = _addresses((*plan.create, *plan.update))
            metrics.added.observe(len(after - before))
            metrics.removed.observe(len(before - after))
        else:
            metrics.added.observe(0)
            metrics.removed.observe(0)
        for operation, slices in changes.items():
            metrics.changes.labels(operation).inc(len(slices))
        # Topology is what the annotation of old asked for, which nobody follows any more.
        changed = metrics.changed.labels("Disabled", service.spec.trafficDistribution)
        changed.observe(sum(map(len, changes.values())))

    def _backends(self, service: service_pb2.Service) -> list[PodView]:
        selector = selector_of(service)
        pods = self._pods.store.projections_by_index(NAMESPACE_INDEX, service.metadata.namespace)
        return [pod for _, pod in pods if selector.matches(pod.labels)]

    def _zones(self, pods: Iterable[PodView]) -> dict[str, str]:
        """The zones of the pods' nodes; there may be far more nodes than pods."""
        views = {pod.node: self._nodes.store.projection(pod.node) for pod in pods if pod.node}
        return {name: view.zone for name, view in views.items() if view is not None}

    def _own_slices(self, service: service_pb2.Service) -> list[discovery_pb2.EndpointSlice]:
        found: list[discovery_pb2.EndpointSlice] = self._slices.by_index(SERVICE_INDEX, namespaced_name(service))
        return [item for item in found if _is_ours(item)]

    def _pod_keys(self, old: Any, new: Any) -> Iterable[str]:
        if not changed_backends(old, new):
            return ()
        namespace = (new if new is not None else old).metadata.namespace
        return services_of(self._services.store.projections_by_index(NAMESPACE_INDEX, namespace), old, new)

    def _node_keys(self, old: Any, new: Any) -> Iterable[str]:
        """A zone is given to a node once; then all endpoints of the node are to be told of it."""
        if new is None or zone_of(new) == (zone_of(old) if old is not None else ""):
            return ()
        return list(self._services.keys())


def _addresses(slices: Iterable[discovery_pb2.EndpointSlice]) -> set[str]:
    return {address for item in slices for endpoint in item.endpoints for address in endpoint.addresses}


def _is_ours(item: discovery_pb2.EndpointSlice) -> bool:
    return bool(item.metadata.labels.get(MANAGED_BY) == MANAGER)


def _slice_keys(old: Any, new: Any) -> Iterable[str]:
    """The Service of a slice; also of one that was ours, so that somebody's edit is undone."""
    keys: dict[str, None] = {}
    for item in (old, new):
        if item is not None and _is_ours(item):
            keys[join_key(item.metadata.namespace, item.metadata.labels.get(SERVICE_NAME, ""))] = None
    return keys
