"""Empties namespaces that are being deleted, then lets them go.

Pods go first and must be gone before the rest is touched, so that a running program never loses the configuration,
policies or permissions it works under.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from google.protobuf.message import Message

from tiphys.api.apiextensions.v1.apiextensions_pb2 import CustomResourceDefinition
from tiphys.api.core.v1 import namespace_pb2, pod_pb2
from tiphys.apiserver.v1 import wire_pb2
from tiphys_apimachinery.errors import APIError, MethodNotAllowed, NotFound
from tiphys_apimachinery.meta import is_being_deleted, set_condition, time_now
from tiphys_apimachinery.scheme import ResourceInfo, Scheme
from tiphys_client.client import Client
from tiphys_client.controller import RequeueAfter
from tiphys_controller_manager import custom_kinds
from tiphys_controller_manager.controllers.namespace.plan import Remains, conditions
from tiphys_controller_manager.frame import Context, Watch, own_key
from tiphys_controller_manager.pods import seconds

FINALIZER: Final = "kubernetes"
_VERBS: Final = frozenset({"delete", "deletecollection", "list"})
_LOOK_AGAIN_S: Final = 1.0
# Source: kubernetes namespaced_resources_deleter.go: half of the longest grace period is waited between passes.
_LONGEST_WAIT_S: Final = 15.0


class NamespaceController:
    """Keys are names of namespaces."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._clock = context.clock
        self._namespaces = context.informers.of(namespace_pb2.Namespace)
        self._emptier = Emptier(context.client, contents(context.scheme))

    def watches(self) -> Iterable[Watch]:
        """Namespaces."""
        return (Watch(namespace_pb2.Namespace, own_key),)

    def first_keys(self) -> Iterable[str]:
        """None: every namespace is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """One pass over a namespace that is being deleted. Raises errors of the API."""
        known = self._namespaces.get(key)
        if known is None or not is_being_deleted(known) or FINALIZER not in known.spec.finalizers:
            return None
        try:
            namespace = await self._client.get(namespace_pb2.Namespace, key)
        except NotFound:
            return None
        if namespace.metadata.uid != known.metadata.uid or not is_being_deleted(namespace):
            return None
        remains = await self._emptier.empty(key, now=self._clock.now().timestamp())
        namespace = await self._write_status(namespace, remains)
        if not remains.is_empty:
            return RequeueAfter(min(max(_LOOK_AGAIN_S, remains.wait_s / 2), _LONGEST_WAIT_S))
        await self._finalize(namespace)
        return None

    async def _write_status(self, namespace: namespace_pb2.Namespace, remains: Remains) -> namespace_pb2.Namespace:
        changed = False
        for condition in conditions(remains, time_now(self._clock)):
            changed = set_condition(namespace.status.conditions, condition) or changed
        if namespace.status.phase != "Terminating":
            namespace.status.phase = "Terminating"
            changed = True
        return await self._client.update_status(namespace) if changed else namespace

    async def _finalize(self, namespace: namespace_pb2.Namespace) -> None:
        """Take our finalizer off; the server drops the namespace with the last one."""
        namespace.spec.finalizers.remove(FINALIZER)
        name = namespace.metadata.name
        request = wire_pb2.UpdateRequest(object=namespace.SerializeToString(), name=name, subresource="finalize")
        try:
            await self._client.call(namespace_pb2.Namespace, "Update", request, wire_pb2.UpdateResponse)
        except NotFound:
            return


def contents(scheme: Scheme) -> tuple[ResourceInfo, ...]:
    """The resources that a namespace holds, each kind once, pods first, events last."""
    found = [info for info in scheme.resources() if info.namespaced and set(info.verbs) >= _VERBS]
    # An Event is served by two groups and stored once.
    order = {"pods": 0, "events": 2}
    kept = [info for info in found if not (info.plural == "events" and info.group)]
    return tuple(sorted(kept, key=lambda info: order.get(info.plural, 1)))


class Emptier:
    """Deletes what a namespace holds, one resource after another."""

    def __init__(self, client: Client, resources: Sequence[ResourceInfo]) -> None:
        self._client = client
        self._resources = resources

    async def empty(self, namespace: str, *, now: float) -> Remains:
        """Delete everything; what is left afterwards. Beside pods nothing is touched before they are gone."""
        remains = Remains()
        for info in self._resources:
            try:
                await self._empty_one(info, namespace, remains, now)
            except (NotFound, MethodNotAllowed):
                # The server does not serve it (any more): there is nothing of it either.
                continue
            except APIError as err:
                remains.errors.append(f"{info.group_resource}: {err}")
            if info.message is pod_pb2.Pod and not remains.is_empty:
                return remains
        await self._empty_custom(namespace, remains, now)
        return remains

    async def _empty_custom(self, namespace: str, remains: Remains, now: float) -> None:
        """The same for kinds that were defined at run time."""
        try:
            definitions = (await self._client.list(CustomResourceDefinition)).items
        except (NotFound, MethodNotAllowed):
            return
        except APIError as err:
            remains.errors.append(f"customresourcedefinitions: {err}")
            return
        for cls in custom_kinds.namespaced(definitions):
            name = f"{cls.KIND.plural}.{cls.KIND.group}"
            try:
                await self._empty_class(cls, name, namespace, remains=remains, now=now)
            except (NotFound, MethodNotAllowed):
                continue
            except APIError as err:
                remains.errors.append(f"{name}: {err}")

    async def _empty_one(self, info: ResourceInfo, namespace: str, remains: Remains, now: float) -> None:
        await self._empty_class(info.message, info.group_resource, namespace, remains=remains, now=now)

    async def _empty_class(self, cls: Any, name: str, namespace: str, *, remains: Remains, now: float) -> None:
        left = await self._list(cls, namespace)
        if not left:
            return
        if any(not is_being_deleted(obj) for obj in left):
            await self._client.delete_collection(cls, namespace)
            left = await self._list(cls, namespace)
        if left:
            remains.counts[name] = len(left)
        for obj in left:
            for finalizer in obj.metadata.finalizers:
                remains.finalizers[finalizer] = remains.finalizers.get(finalizer, 0) + 1
            if obj.metadata.HasField("deletionTimestamp"):
                remains.wait_s = max(remains.wait_s, seconds(obj.metadata.deletionTimestamp) - now)

    async def _list(self, cls: type[Message], namespace: str) -> list[Any]:
        return list((await self._client.list(cls, namespace)).items)
