"""The client: verbs of the API over message classes, errors as exceptions.

client = Client(GrpcTransport(kubeconfig.load(path)))
pod = await client.get(Pod, "web", "default")
page = await client.list(Pod, label_selector="app=web")
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Generic, Literal, TypeVar, cast

import orjson
from google.protobuf.message import Message

from tiphys.api.authentication.v1.authentication_pb2 import TokenRequest
from tiphys.api.core.v1 import binding_pb2, pod_pb2, service_account_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys.apiserver.v1 import wire_pb2
from tiphys_apimachinery.errors import APIError, InternalError, NotFound, from_status
from tiphys_client.resource_facts import Stored, facts_of
from tiphys_client.transport import DEFAULT_TIMEOUT_S, Transport

MessageT = TypeVar("MessageT", bound=Stored)
ReplyT = TypeVar("ReplyT", bound=Message)

PatchForm = Literal["json", "merge", "strategic", "apply"]
Propagation = Literal["Background", "Foreground", "Orphan"]
_PATCH_TYPES = {
    "json": wire_pb2.PATCH_TYPE_JSON,
    "merge": wire_pb2.PATCH_TYPE_MERGE,
    "strategic": wire_pb2.PATCH_TYPE_STRATEGIC,
    "apply": wire_pb2.PATCH_TYPE_APPLY,
}
# A list of 100,000 objects takes seconds, and a follower waits for it rather than ask again.
LIST_TIMEOUT_S = 120.0


class EventType(IntEnum):
    """What happened to an object; the numbers are those of the wire."""

    ADDED = 1
    MODIFIED = 2
    DELETED = 3
    BOOKMARK = 4


# Quicker than the call of the enum, which is made for each event.
_EVENT_TYPES = {int(kind): kind for kind in EventType}


class WatchEvent(Generic[MessageT]):
    """One change. The object is parsed when it is first asked for; of a bookmark only its resource version counts."""

    __slots__ = ("_cls", "_object", "raw", "type")

    def __init__(self, type: EventType, raw: bytes, cls: type[MessageT]) -> None:
        self.type = type
        self.raw = raw
        self._cls = cls
        self._object: MessageT | None = None

    @property
    def object(self) -> MessageT:
        """The object after the change, for DELETED as it was last."""
        if self._object is None:
            self._object = self._cls.FromString(self.raw)
        return self._object

    def __repr__(self) -> str:
        return f"WatchEvent({self.type.name}, {facts_of(self._cls).kind})"


class ListResult(Generic[MessageT]):
    """A page of objects, as bytes until they are touched.

    resource_version is that of the whole list: a watch from it continues without a gap.
    """

    __slots__ = ("_cls", "_items", "continue_token", "raw_items", "remaining", "resource_version")

    def __init__(self, cls: type[MessageT], raw_items: builtins.list[bytes], metadata: meta_pb2.ListMeta) -> None:
        self._cls = cls
        self._items: builtins.list[MessageT] | None = None
        self.raw_items = raw_items
        self.resource_version = metadata.resourceVersion
        self.continue_token: str = getattr(metadata, "continue")
        self.remaining = metadata.remainingItemCount

    @property
    def items(self) -> builtins.list[MessageT]:
        """The objects, parsed at the first call."""
        if self._items is None:
            self._items = [self._cls.FromString(raw) for raw in self.raw_items]
        return self._items

    def __len__(self) -> int:
        return len(self.raw_items)


@dataclass(frozen=True, slots=True)
class Bind:
    """Put the pod on the node; with a uid only that very pod."""

    namespace: str
    name: str
    node: str
    uid: str = ""
    annotations: Mapping[str, str] | None = None


class Client:
    """Calls of the API for any message class. Every method raises errors of tiphys_apimachinery.errors.

    Objects passed in are not changed and objects returned are the caller's own. field_manager names the caller in
    managed fields; timeout_s limits each call.
    """

    def __init__(self, transport: Transport, *, field_manager: str = "", timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.transport = transport
        self._field_manager = field_manager
        self._timeout_s = timeout_s

    async def get(self, cls: type[MessageT], name: str, namespace: str = "", *, resource_version: str = "") -> MessageT:
        """The object; raises NotFound. With resource_version "0" any state that the server has in memory will do."""
        request = wire_pb2.GetRequest(namespace=namespace, name=name, resource_version=resource_version)
        return _object(cls, await self._unary(cls, "Get", request, wire_pb2.GetResponse))

    async def list(
        self,
        cls: type[MessageT],
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        resource_version: str | None = None,
        resource_version_match: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> ListResult[MessageT]:
        """The objects of a namespace, or of all; a page of at most limit, where continue_token asks for the next.

        Raises Expired when the resource version or the token is too old.
        """
        request = wire_pb2.ListRequest(
            namespace=namespace or "",
            label_selector=label_selector or "",
            field_selector=field_selector or "",
            limit=limit,
            continue_token=continue_token,
            resource_version=resource_version or "",
            resource_version_match=resource_version_match,
        )
        timeout_s = max(self._timeout_s, LIST_TIMEOUT_S)
        reply = await self._unary(cls, "List", request, wire_pb2.ListResponse, timeout_s=timeout_s)
        return ListResult(cls, list(reply.items), meta_pb2.ListMeta.FromString(reply.metadata))

    async def watch(
        self,
        cls: type[MessageT],
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        resource_version: str | None = None,
        resource_version_match: str = "",
        allow_bookmarks: bool = True,
        send_initial_events: bool = False,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[builtins.list[WatchEvent[MessageT]]]:
        """Batches of changes after resource_version, each change once and in order, until the server ends the stream.

        Close it (contextlib.aclosing) when leaving early. Raises Expired when the changes since are no longer known.
        """
        request = wire_pb2.WatchRequest(
            namespace=namespace or "",
            label_selector=label_selector or "",
            field_selector=field_selector or "",
            resource_version=resource_version or "",
            resource_version_match=resource_version_match,
            allow_watch_bookmarks=allow_bookmarks,
            send_initial_events=send_initial_events,
        )
        service = facts_of(cls).service
        stream = self.transport.stream(service, "Watch", request.SerializeToString(), timeout_s=timeout_s)
        async with aclosing(stream) as batches:
            async for batch in batches:
                events = wire_pb2.WatchResponse.FromString(batch).events
                yield [WatchEvent(_EVENT_TYPES[event.type], event.object, cls) for event in events]

    async def create(self, obj: MessageT, *, dry_run: bool = False, field_validation: str = "") -> MessageT:
        """The object as stored; raises AlreadyExists, Invalid."""
        request = wire_pb2.CreateRequest(
            namespace=_namespace(obj),
            object=obj.SerializeToString(),
            dry_run=dry_run,
            field_manager=self._field_manager,
            field_validation=field_validation,
        )
        return _object(type(obj), await self._unary(type(obj), "Create", request, wire_pb2.CreateResponse))

    async def batch_create(
        self, objs: Sequence[MessageT], *, all_or_nothing: bool = False
    ) -> builtins.list[MessageT | APIError]:
        """Create objects of one class and namespace in one call: for each, in order, the stored object or its error.

        With all_or_nothing, for at most 128, all are stored in one transaction or none: where one is refused the
        others have Conflict. Raises BadRequest for more.
        """
        if not objs:
            return []
        results = await self._batch_create(objs, all_or_nothing=all_or_nothing)
        return [_error(item.status) or type(objs[0]).FromString(item.object) for item in results]

    async def batch_store(self, objs: Sequence[Stored]) -> builtins.list[APIError | None]:
        """As batch_create for those who need not see what was stored: for each, in order, None or its error."""
        return [_error(item.status) for item in await self._batch_create(objs)] if objs else []

    async def _batch_create(
        self, objs: Sequence[Stored], *, all_or_nothing: bool = False
    ) -> Sequence[wire_pb2.BatchResult]:
        cls = type(objs[0])
        if any(type(obj) is not cls or _namespace(obj) != _namespace(objs[0]) for obj in objs):
            raise ValueError("a batch has objects of one class and one namespace")
        request = wire_pb2.BatchCreateRequest(
            namespace=_namespace(objs[0]),
            objects=[obj.SerializeToString() for obj in objs],
            field_manager=self._field_manager,
            all_or_nothing=all_or_nothing,
        )
        reply = await self._unary(cls, "BatchCreate", request, wire_pb2.BatchCreateResponse)
        _check_count(len(reply.results), len(objs))
        return reply.results

    async def update(self, obj: MessageT, *, dry_run: bool = False) -> MessageT:
        """The object as stored; raises Conflict when obj is not of the newest version, NotFound, Invalid."""
        return await self._update(obj, "Update", dry_run=dry_run)

    async def update_status(self, obj: MessageT) -> MessageT:
        """Store obj's status and nothing else of it; raises as update does."""
        return await self._update(obj, "UpdateStatus", subresource="status")

    async def update_subresource(self, obj: MessageT, subresource: str) -> MessageT:
        """Store what of obj belongs to a subresource (approval, resize); raises as update does."""
        return await self._update(obj, "Update", subresource=subresource)

    async def _update(self, obj: MessageT, method: str, *, subresource: str = "", dry_run: bool = False) -> MessageT:
        request = wire_pb2.UpdateRequest(
            namespace=_namespace(obj),
            object=obj.SerializeToString(),
            dry_run=dry_run,
            field_manager=self._field_manager,
            name=cast(Any, obj).metadata.name,
            subresource=subresource,
        )
        return _object(type(obj), await self._unary(type(obj), method, request, wire_pb2.UpdateResponse))

    async def patch(
        self,
        cls: type[MessageT],
        name: str,
        namespace: str,
        patch: Mapping[str, Any] | Sequence[Any],
        *,
        type: PatchForm = "merge",
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> MessageT:
        """The object after the patch. An apply creates it where it is absent; the others raise NotFound."""
        request = wire_pb2.PatchRequest(
            namespace=namespace,
            name=name,
            patch_type=_PATCH_TYPES[type],
            patch=orjson.dumps(patch),
            subresource=subresource,
            dry_run=dry_run,
            field_manager=field_manager or self._field_manager,
            force=force,
        )
        return _object(cls, await self._unary(cls, "Patch", request, wire_pb2.PatchResponse))

    async def batch_patch(
        self,
        cls: type[MessageT],
        namespace: str,
        patches: Sequence[tuple[str, Mapping[str, Any] | Sequence[Any]]],
        *,
        type: Literal["json", "merge", "strategic"] = "merge",
        subresource: str = "",
    ) -> builtins.list[APIError | None]:
        """Patch objects of one namespace by name in one call: for each, in order, None or its error."""
        if not patches:
            return []
        request = wire_pb2.BatchPatchRequest(
            namespace=namespace,
            patch_type=_PATCH_TYPES[type],
            patches=[wire_pb2.NamedPatch(name=name, patch=orjson.dumps(patch)) for name, patch in patches],
            subresource=subresource,
            field_manager=self._field_manager,
        )
        reply = await self._unary(cls, "BatchPatch", request, wire_pb2.BatchPatchResponse)
        _check_count(len(reply.statuses), len(patches))
        return [_error(status) for status in reply.statuses]

    async def batch_delete(
        self,
        cls: type[MessageT],
        namespace: str,
        wanted: Sequence[tuple[str, str]],
        *,
        grace_period_s: int | None = None,
        propagation: Propagation | None = None,
    ) -> builtins.list[APIError | None]:
        """Ask for the end of objects of one namespace in one call, each by name and uid (empty: whichever it is).

        For each, in order, None or its error, as delete raises them.
        """
        if not wanted:
            return []
        request = wire_pb2.BatchDeleteRequest(
            namespace=namespace,
            deletes=[wire_pb2.NamedDelete(name=name, uid=uid) for name, uid in wanted],
            options=_delete_options(grace_period_s, propagation).SerializeToString(),
        )
        reply = await self._unary(cls, "BatchDelete", request, wire_pb2.BatchDeleteResponse)
        _check_count(len(reply.statuses), len(wanted))
        return [_error(status) for status in reply.statuses]

    async def delete(
        self,
        cls: type[MessageT],
        name: str,
        namespace: str = "",
        *,
        grace_period_s: int | None = None,
        propagation: Propagation | None = None,
        preconditions_uid: str | None = None,
        absent_ok: bool = False,
    ) -> None:
        """Ask for the object's end; finalizers and a grace period may hold it for a while.

        Raises NotFound unless absent_ok, and Conflict when it is not the one of preconditions_uid.
        """
        options = _delete_options(grace_period_s, propagation)
        if preconditions_uid is not None:
            options.preconditions.uid = preconditions_uid
        request = wire_pb2.DeleteRequest(namespace=namespace, name=name, options=options.SerializeToString())
        try:
            await self._unary(cls, "Delete", request, wire_pb2.DeleteResponse)
        except NotFound:
            if not absent_ok:
                raise

    async def delete_collection(
        self, cls: type[MessageT], namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> None:
        """Delete every object of the namespace that the selectors choose."""
        request = wire_pb2.DeleteCollectionRequest(
            namespace=namespace, label_selector=label_selector, field_selector=field_selector
        )
        await self._unary(cls, "DeleteCollection", request, wire_pb2.DeleteCollectionResponse, timeout_s=LIST_TIMEOUT_S)

    async def bind(self, binds: Sequence[Bind]) -> builtins.list[APIError | None]:
        """Put pods on nodes in one call: for each, in order, None or its error (Conflict when it is bound already)."""
        if not binds:
            return []
        request = wire_pb2.BatchBindRequest(bindings=[_binding(item).SerializeToString() for item in binds])
        reply = await self._unary(pod_pb2.Pod, "BatchBind", request, wire_pb2.BatchBindResponse)
        _check_count(len(reply.statuses), len(binds))
        return [_error(status) for status in reply.statuses]

    async def create_token(
        self,
        service_account: str,
        namespace: str,
        *,
        audiences: Sequence[str] = (),
        expiration_s: int = 3600,
        pod: pod_pb2.Pod | None = None,
    ) -> TokenRequest:
        """A token of a service account, bound to a pod if one is given; the answer's status has it and its end."""
        request = TokenRequest()
        request.spec.audiences.extend(audiences)
        request.spec.expirationSeconds = expiration_s
        if pod is not None:
            bound = request.spec.boundObjectRef
            bound.kind, bound.apiVersion = "Pod", "v1"
            bound.name, bound.uID = pod.metadata.name, pod.metadata.uid
        return await self.post(
            service_account_pb2.ServiceAccount, "CreateToken", service_account, namespace, body=request
        )

    async def post(self, parent: type[Stored], method: str, name: str, namespace: str, *, body: MessageT) -> MessageT:
        """Create a subresource of a named object by its method: CreateToken, Evict; the answer has the body's class."""
        request = wire_pb2.CreateRequest(
            namespace=namespace, object=body.SerializeToString(), name=name, field_manager=self._field_manager
        )
        return _object(type(body), await self._unary(parent, method, request, wire_pb2.CreateResponse))

    async def call(
        self, cls: type[Stored], method: str, request: Message, reply: type[ReplyT], *, timeout_s: float | None = None
    ) -> ReplyT:
        """Any method of the service of cls, for those that have no name here, such as GetScale."""
        return await self._unary(cls, method, request, reply, timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the transport."""
        await self.transport.close()

    async def _unary(
        self, cls: type[Stored], method: str, request: Message, reply: type[ReplyT], *, timeout_s: float | None = None
    ) -> ReplyT:
        answer = await self.transport.unary(
            facts_of(cls).service,
            method,
            request.SerializeToString(),
            timeout_s=self._timeout_s if timeout_s is None else timeout_s,
        )
        return reply.FromString(answer)


def _delete_options(grace_period_s: int | None, propagation: Propagation | None) -> meta_pb2.DeleteOptions:
    options = meta_pb2.DeleteOptions()
    if grace_period_s is not None:
        options.gracePeriodSeconds = grace_period_s
    if propagation is not None:
        options.propagationPolicy = propagation
    return options


def _binding(item: Bind) -> binding_pb2.Binding:
    binding = binding_pb2.Binding()
    binding.metadata.namespace, binding.metadata.name = item.namespace, item.name
    if item.uid:
        binding.metadata.uid = item.uid
    if item.annotations:
        binding.metadata.annotations.update(item.annotations)
    binding.target.kind, binding.target.name = "Node", item.node
    return binding


def _namespace(obj: Stored) -> str:
    return str(cast(Any, obj).metadata.namespace)


def _object(cls: type[MessageT], reply: Any) -> MessageT:
    return cls.FromString(reply.object)


def _error(status: bytes) -> APIError | None:
    if not status:
        return None
    message = meta_pb2.Status.FromString(status)
    return from_status(message) if message.status != "Success" and message.code >= 400 else None


def _check_count(got: int, wanted: int) -> None:
    if got != wanted:
        raise InternalError(f"the server answered {got} of a batch of {wanted}")
