"""Keeps the legacy Endpoints of each Service that has a selector, for those who still read them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tiphys.api.core.v1 import endpoints_pb2, pod_pb2, service_pb2
from tiphys_apimachinery.errors import AlreadyExists, APIError
from tiphys_apimachinery.meta import is_being_deleted, split_key
from tiphys_client.controller import RequeueAfter
from tiphys_controller_manager.backends import changed_backends, has_managed_backends, selector_of, services_of
from tiphys_controller_manager.controllers.endpoints.plan import MANAGED_BY, MANAGER, endpoints_of
from tiphys_controller_manager.frame import Context, Watch, own_key
from tiphys_controller_manager.pod_control import is_namespace_ending
from tiphys_controller_manager.pods import NAMESPACE_INDEX

_LAG_S: Final = 1.0


class EndpointsController:
    """Keys are those of Services, namespace/name."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._services = context.informers.of(service_pb2.Service)
        self._endpoints = context.informers.of(endpoints_pb2.Endpoints)
        self._pods = context.informers.of(pod_pb2.Pod)
        self._expectations = context.expectations(endpoints_pb2.Endpoints)

    def watches(self) -> Iterable[Watch]:
        """Services, the pods they select, and Endpoints."""
        return (
            Watch(service_pb2.Service, own_key),
            Watch(pod_pb2.Pod, self._pod_keys),
            Watch(endpoints_pb2.Endpoints, own_key),
        )

    def first_keys(self) -> Iterable[str]:
        """None: every Service is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Bring one Service's Endpoints up to date. Raises errors of the API."""
        if not self._expectations.are_met(key):
            return RequeueAfter(_LAG_S)
        await self._reconcile(key, self._services.get(key), self._endpoints.get(key))
        return None

    async def _reconcile(
        self, key: str, service: service_pb2.Service | None, known: endpoints_pb2.Endpoints | None
    ) -> None:
        if service is None:
            if known is not None and known.metadata.labels.get(MANAGED_BY) == MANAGER:
                namespace, name = split_key(key)
                await self._client.delete(
                    endpoints_pb2.Endpoints, name, namespace, preconditions_uid=known.metadata.uid, absent_ok=True
                )
            return
        if is_being_deleted(service) or not has_managed_backends(service):
            return
        selector = selector_of(service)
        pods = self._pods.store.projections_by_index(NAMESPACE_INDEX, service.metadata.namespace)
        wanted = endpoints_of(service, [pod for _, pod in pods if selector.matches(pod.labels)])
        if known is None:
            await self._create(key, wanted)
        elif _differs(known, wanted):
            wanted.metadata.resourceVersion = known.metadata.resourceVersion
            wanted.metadata.uid = known.metadata.uid
            self._expectations.wrote(key, await self._client.update(wanted))

    async def _create(self, key: str, wanted: endpoints_pb2.Endpoints) -> None:
        try:
            self._expectations.wrote(key, await self._client.create(wanted))
        except AlreadyExists:
            # Our view is behind: its event brings the key again.
            return
        except APIError as err:
            if not is_namespace_ending(err):
                raise

    def _pod_keys(self, old: Any, new: Any) -> Iterable[str]:
        if not changed_backends(old, new):
            return ()
        namespace = (new if new is not None else old).metadata.namespace
        return services_of(self._services.store.projections_by_index(NAMESPACE_INDEX, namespace), old, new)


def _differs(known: endpoints_pb2.Endpoints, wanted: endpoints_pb2.Endpoints) -> bool:
    return list(known.subsets) != list(wanted.subsets) or dict(known.metadata.labels) != dict(wanted.metadata.labels)
