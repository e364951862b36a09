"""Mirrors Endpoints that users write for a Service without a selector, so that proxies see them like all others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tiphys.api.core.v1 import endpoints_pb2, service_pb2
from tiphys_apimachinery.errors import APIError
from tiphys_apimachinery.meta import join_key
from tiphys_client.controller import RequeueAfter
from tiphys_controller_manager.backends import SERVICE_INDEX, SERVICE_NAME
from tiphys_controller_manager.controllers.endpointslice.plan import MANAGED_BY
from tiphys_controller_manager.controllers.endpointslice_mirroring.plan import MANAGER, is_mirrored, plan_mirror
from tiphys_controller_manager.frame import Context, Watch, own_key
from tiphys_controller_manager.pod_control import is_namespace_ending
from tiphys_controller_manager.slices import EndpointSlice, SlicePlan, SliceWriter

_LAG_S: Final = 1.0
# What the API takes in one slice.
_MOST_IN_SLICE: Final = 1000


class EndpointSliceMirroringController:
    """Keys are those of Endpoints, which are also those of their Services."""

    def __init__(self, context: Context) -> None:
        self._events = context.events
        self._most = context.options.mirroring_max_endpoints_per_subset
        self._endpoints = context.informers.of(endpoints_pb2.Endpoints)
        self._services = context.informers.of(service_pb2.Service)
        self._slices = context.informers.of(EndpointSlice)
        self._expectations = context.expectations(EndpointSlice)
        self._writer = SliceWriter(context.client, self._expectations)

    def watches(self) -> Iterable[Watch]:
        """Endpoints, Services that get or lose a selector, and the slices that stand for Endpoints."""
        return (
            Watch(endpoints_pb2.Endpoints, own_key),
            Watch(service_pb2.Service, _service_keys),
            Watch(EndpointSlice, _slice_keys),
        )

    def first_keys(self) -> Iterable[str]:
        """None: all Endpoints are seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Bring the slices of one Endpoints object up to date. Raises errors of the API."""
        if not self._expectations.are_met(key):
            return RequeueAfter(_LAG_S)
        endpoints = self._endpoints.get(key)
        own = [item for item in self._slices.by_index(SERVICE_INDEX, key) if _is_ours(item)]
        if endpoints is not None and is_mirrored(endpoints, self._services.get(key)):
            plan = plan_mirror(endpoints, own, most_in_subset=self._most, most_in_slice=_MOST_IN_SLICE)
        else:
            plan = SlicePlan(delete=own)
        try:
            await self._writer.write(key, plan)
        except APIError as err:
            if not is_namespace_ending(err):
                if endpoints is not None:
                    text = f"Error updating mirrored EndpointSlices for {key}: {err}"
                    self._events.event(endpoints, "Warning", "FailedToUpdateEndpointSlices", text)
                raise
        if endpoints is None:
            self._expectations.forget(key)
        return None


def _is_ours(item: EndpointSlice) -> bool:
    return bool(item.metadata.labels.get(MANAGED_BY) == MANAGER)


def _service_keys(old: Any, new: Any) -> Iterable[str]:
    if old is not None and new is not None and bool(old.spec.selector) == bool(new.spec.selector):
        return ()
    return own_key(old, new)


def _slice_keys(old: Any, new: Any) -> Iterable[str]:
    """The Endpoints of a slice; also of one that was ours, so that somebody's edit is undone."""
    return {
        join_key(item.metadata.namespace, item.metadata.labels.get(SERVICE_NAME, "")): None
        for item in (old, new)
        if item is not None and _is_ours(item)
    }
