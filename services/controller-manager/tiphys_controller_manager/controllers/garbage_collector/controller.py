"""Deletes what has no owner left, in the way that was asked for: behind the owner, before it, or not at all.

The graph only says where to look. Before anything is deleted the object and its owners are read from the server, and
the delete holds for just the version that was read: a view that lags, or a change in between, deletes nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final

from google.protobuf.message import Message

from tiphys.api.apiextensions.v1.apiextensions_pb2 import CustomResourceDefinition
from tiphys.api.meta.v1 import meta_pb2
from tiphys.apiserver.v1 import wire_pb2
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.dynamic import DynamicObject
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.scheme import ResourceInfo, Scheme
from tiphys_component.log import get_logger
from tiphys_controller_manager.controllers.garbage_collector.custom import CustomKinds
from tiphys_controller_manager.controllers.garbage_collector.graph import (
    FOREGROUND_FINALIZER,
    ORPHAN_FINALIZER,
    Facts,
    Graph,
    Identity,
    OwnerRef,
    facts_of,
)
from tiphys_controller_manager.controllers.garbage_collector.plan import (
    Delete,
    DropOwners,
    OwnerState,
    Propagation,
    judge,
    owner_state,
)
from tiphys_controller_manager.frame import Context, Watch

_VERBS: Final = frozenset({"delete", "get", "list", "watch"})
_ABSENT_CAPACITY: Final = 2000
# Served by others, through aggregation, if at all.
_FOREIGN_GROUPS: Final = frozenset({"metrics.k8s.io"})


class GarbageCollector:
    """Keys are uids."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._queue = context.queue
        self._scheme = context.scheme
        self._graph = Graph()
        self._watched = collectable(context.scheme)
        self._custom = CustomKinds(context.informers, self._observe, context.queue.add)
        # Owners that the server says do not exist; a uid never comes back.
        self._absent: OrderedDict[str, None] = OrderedDict()
        self._log = get_logger("garbage-collector-controller")
        for info in self._watched:
            context.informers.of(info.message)

    def watches(self) -> Iterable[Watch]:
        """Every resource whose objects can be deleted, but for events."""
        watched = [Watch(info.message, self._observer(info)) for info in self._watched]
        return (*watched, Watch(CustomResourceDefinition, self._custom.definition))

    def first_keys(self) -> Iterable[str]:
        """None: what was seen has said where to look."""
        return ()

    async def reconcile(self, key: str) -> None:
        """Look at one object. Raises errors of the API."""
        node = self._graph.get(key)
        if node is None:
            return
        facts = node.facts
        if not node.is_observed:
            await self._verify(facts.identity)
        elif facts.is_orphaning:
            await self._orphan(facts)
        elif facts.is_foreground:
            await self._finish_foreground(facts)
        elif not facts.is_deleting:
            await self._attempt(facts)

    def _observer(self, info: ResourceInfo) -> Callable[[Any, Any], Iterable[str]]:
        api_version, kind = info.api_version, info.kind

        return lambda old, new: self._observe(old, new, api_version, kind)

    def _observe(self, old: Any, new: Any, api_version: str, kind: str) -> Iterable[str]:
        if new is None:
            uid = old.metadata.uid
            self._note_absent(uid)
            return self._graph.remove(uid)
        return self._graph.put(facts_of(new, api_version, kind))

    async def _verify(self, identity: Identity) -> None:
        """Ask the server about an owner that no informer has shown."""
        found = await self._live(identity)
        if found is None or found.identity.uid != identity.uid:
            self._note_absent(identity.uid)
            for uid in self._graph.forget_unobserved(identity.uid):
                self._queue.add(uid)

    async def _attempt(self, facts: Facts) -> None:
        """Delete an object whose owners are all gone."""
        cls = self._class_of(facts.identity)
        if cls is None:
            return
        obj = await self._get(cls, facts.identity)
        if obj is None or obj.metadata.uid != facts.identity.uid:
            # Its end was not seen yet; the informer brings it.
            return
        live = facts_of(obj, facts.identity.api_version, facts.identity.kind)
        states: dict[str, OwnerState] = {}
        for owner in live.owners:
            states[owner.uid] = await self._owner_state(live.identity, owner)
        dependents = self._graph.dependents(live.identity.uid)
        verdict = judge(live, states, dependents)
        if isinstance(verdict, DropOwners):
            await self._drop_owners(cls, live.identity, verdict.uids)
        elif isinstance(verdict, Delete):
            if verdict.unblock:
                obj = await self._unblock(cls, obj)
            await self._delete(cls, obj, verdict.propagation)

    async def _owner_state(self, identity: Identity, owner: OwnerRef) -> OwnerState:
        if owner.uid in self._absent:
            return OwnerState.ABSENT
        found_kind = self._kind(owner.api_version, owner.kind)
        if found_kind is None or (found_kind[1] and not identity.namespace):
            # A kind that nobody knows, or an owner in no particular namespace: it can't be looked up, so it stands.
            self._log.warning("owner can't be looked up", kind=owner.kind, owner=owner.name, dependent=identity.name)
            return OwnerState.SOLID
        namespace = identity.namespace if found_kind[1] else ""
        found = await self._live(Identity(owner.api_version, owner.kind, namespace, owner.name, owner.uid))
        state = owner_state(owner, found)
        if state is OwnerState.ABSENT:
            self._note_absent(owner.uid)
        return state

    async def _finish_foreground(self, facts: Facts) -> None:
        """Let an object go when nothing that blocks it is left; until then see to those that do."""
        blocking = self._graph.blocking(facts.identity.uid)
        for item in blocking:
            if not item.is_foreground:
                self._queue.add(item.identity.uid)
        if not blocking:
            await self._drop_finalizer(facts.identity, FOREGROUND_FINALIZER)

    async def _orphan(self, facts: Facts) -> None:
        """Release the dependents, then let the object go."""
        for item in self._graph.dependents(facts.identity.uid):
            cls = self._class_of(item.identity)
            if cls is not None:
                await self._drop_owners(cls, item.identity, (facts.identity.uid,))
        await self._drop_finalizer(facts.identity, ORPHAN_FINALIZER)

    async def _drop_owners(self, cls: type[Any], identity: Identity, uids: tuple[str, ...]) -> None:
        if issubclass(cls, DynamicObject):
            await self._change_owners(cls, identity, lambda owner: None if owner["uid"] in uids else owner)
            return
        references = [{"$patch": "delete", "uid": uid} for uid in uids]
        patch = {"metadata": {"uid": identity.uid, "ownerReferences": references}}
        try:
            await self._client.patch(cls, identity.name, identity.namespace, patch, type="strategic")
        except NotFound:
            return

    async def _unblock(self, cls: type[Any], obj: Any) -> Any:
        """Have no owner wait for this object."""
        metadata = obj.metadata
        references = [
            {"uid": owner.uid, "blockOwnerDeletion": False}
            for owner in metadata.ownerReferences
            if owner.blockOwnerDeletion
        ]
        if not references:
            return obj
        if issubclass(cls, DynamicObject):
            identity = Identity("", "", metadata.namespace, metadata.name, metadata.uid)
            return await self._change_owners(cls, identity, lambda owner: {**owner, "blockOwnerDeletion": False})
        patch = {"metadata": {"uid": metadata.uid, "ownerReferences": references}}
        return await self._client.patch(cls, metadata.name, metadata.namespace, patch, type="strategic")

    async def _change_owners(self, cls: type[Any], identity: Identity, change: Callable[[Any], Any | None]) -> Any:
        """Change each reference of a custom object to an owner: no contract says how lists of its kind merge."""
        obj = await self._get(cls, identity)
        if obj is None or obj.metadata.uid != identity.uid:
            return obj
        owners = json_codec.to_json(obj.metadata, with_type_meta=False).get("ownerReferences", [])
        kept = [changed for owner in owners if (changed := change(owner)) is not None]
        patch = {"metadata": {"resourceVersion": obj.metadata.resourceVersion, "ownerReferences": kept}}
        try:
            return await self._client.patch(cls, identity.name, identity.namespace, patch)
        except NotFound:
            return None

    async def _drop_finalizer(self, identity: Identity, finalizer: str) -> None:
        cls = self._class_of(identity)
        obj = await self._get(cls, identity) if cls is not None else None
        if cls is None or obj is None or obj.metadata.uid != identity.uid:
            return
        kept = [name for name in obj.metadata.finalizers if name != finalizer]
        if len(kept) == len(obj.metadata.finalizers):
            return
        patch = {"metadata": {"resourceVersion": obj.metadata.resourceVersion, "finalizers": kept}}
        try:
            await self._client.patch(cls, identity.name, identity.namespace, patch)
        except NotFound:
            return

    async def _delete(self, cls: type[Message], obj: Any, propagation: Propagation) -> None:
        """Delete just the version that was judged. Raises Conflict if it has changed since."""
        metadata = obj.metadata
        options = meta_pb2.DeleteOptions(propagationPolicy=propagation)
        options.preconditions.uid = metadata.uid
        options.preconditions.resourceVersion = metadata.resourceVersion
        request = wire_pb2.DeleteRequest(
            namespace=metadata.namespace, name=metadata.name, options=options.SerializeToString()
        )
        try:
            await self._client.call(cls, "Delete", request, wire_pb2.DeleteResponse)
        except NotFound:
            return
        name = f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name
        self._log.info("deleted", kind=cls.DESCRIPTOR.name, object=name, propagation=propagation)

    async def _live(self, identity: Identity) -> Facts | None:
        """What the server has under a name, read past every cache of ours."""
        found = self._kind(identity.api_version, identity.kind)
        if found is None:
            # It can't be looked up: as good as there, unchanged.
            return Facts(identity)
        cls, is_namespaced = found
        namespace = identity.namespace if is_namespaced else ""
        try:
            obj: Any = await self._client.get(cls, identity.name, namespace)
        except NotFound:
            return None
        return facts_of(obj, identity.api_version, identity.kind)

    async def _get(self, cls: type[Message], identity: Identity) -> Any | None:
        try:
            return await self._client.get(cls, identity.name, identity.namespace)
        except NotFound:
            return None

    def _class_of(self, identity: Identity) -> type[Message] | None:
        found = self._kind(identity.api_version, identity.kind)
        return found[0] if found is not None else None

    def _kind(self, api_version: str, kind: str) -> tuple[type[Any], bool] | None:
        """The class of a kind, and whether its objects are in namespaces."""
        info = self._scheme.by_kind(api_version, kind)
        if info is not None:
            return info.message, info.namespaced
        custom = self._custom.find(api_version, kind)
        return (custom, custom.KIND.namespaced) if custom is not None else None

    def _note_absent(self, uid: str) -> None:
        self._absent[uid] = None
        if len(self._absent) > _ABSENT_CAPACITY:
            self._absent.popitem(last=False)


def collectable(scheme: Scheme) -> tuple[ResourceInfo, ...]:
    """The resources to watch: each stored kind once, by its newest version. Events neither own nor are owned."""
    newest: dict[tuple[str, str], ResourceInfo] = {}
    for info in scheme.resources():
        if info.plural == "events" or info.group in _FOREIGN_GROUPS or not set(info.verbs) >= _VERBS:
            continue
        known = newest.get((info.group, info.plural))
        if known is None or info.version > known.version:
            newest[info.group, info.plural] = info
    return tuple(newest.values())
