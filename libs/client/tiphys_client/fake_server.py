"""An API server in memory for tests: it answers the wire messages of tiphys.apiserver.v1 with the API's semantics.

It knows resource versions, conflicts, generateName, generations, the status subresource, finalizers, grace periods,
selectors, pages, watches with resume and 410, patches and binding. It does not validate, default, authorize or collect
garbage. The same conformance suite runs against it and against the real server.
"""

from __future__ import annotations

import builtins
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from tiphys.api.autoscaling.v1 import autoscaling_pb2
from tiphys.api.core.v1 import binding_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys.apiserver.v1 import wire_pb2
from tiphys_apimachinery.errors import (
    AlreadyExists,
    APIError,
    BadRequest,
    Conflict,
    Expired,
    MethodNotAllowed,
    NotFound,
    ServiceUnavailable,
    Timeout,
)
from tiphys_apimachinery.fields import FieldSelector
from tiphys_apimachinery.labels import Selector, from_label_selector
from tiphys_apimachinery.scheme import Scheme, load_default
from tiphys_client import fake_patch, fake_rules
from tiphys_client.fake_store import FakeStore, Selection
from tiphys_client.resource_facts import facts_of, service_name
from tiphys_client.transport import DEFAULT_TIMEOUT_S
from tiphys_component.clock import Clock

# So often is another name tried for a generateName that is taken, as kube-apiserver does since 1.30.
_NAME_TRIES = 8


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was made, for tests that count or forbid them."""

    method: str
    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class _Fault:
    method: str
    kind: str
    error: Exception
    times: int
    after: bool


# Objects of one batch of all or nothing; as the API server has it.
_MOST_TOGETHER = 128


class FakeServer:
    """The server. As a Transport it answers in process; what it is told by fail() and cut_watches() it does wrong."""

    def __init__(self, clock: Clock, rng: random.Random | None = None, scheme: Scheme | None = None) -> None:
        self.store = FakeStore()
        self.calls: list[Call] = []
        self._clock = clock
        self._rng = rng or random.Random(0)
        self._classes = {
            service_name(info.kind_info.file, info.version, info.kind): info
            for info in (scheme or load_default()).resources()
        }
        self._faults: list[_Fault] = []
        self._pages: dict[str, tuple[int, list[bytes]]] = {}
        self.batch_size: Callable[[], int] = lambda: 64
        """How many events a watch puts in one message."""

    def fail(
        self, method: str, cls: type[Any] | None, error: Exception, *, times: int = 1, after: bool = False
    ) -> None:
        """Answer the next calls of a method, any class where cls is None, with an error; if after, do it first."""
        self._faults.append(_Fault(method, cls.DESCRIPTOR.name if cls else "", error, times, after))

    def cut_watches(self, error: APIError | None = None) -> None:
        """Break every open watch as a lost connection does, or with the error given."""
        self.store.cut(error or ServiceUnavailable("connection lost"))

    def end_watches(self) -> None:
        """Close every open watch in good order."""
        self.store.cut(None)

    def seed(self, *objs: Any) -> builtins.list[Any]:
        """Store objects as they are, status included; only uid, time and version are filled in. Returns them."""
        stored = []
        for obj in objs:
            made = type(obj)()
            made.CopyFrom(obj)
            kept = type(obj)()
            kept.CopyFrom(obj)
            made.metadata.ClearField("resourceVersion")
            fake_rules.prepare_create(made, made.metadata.namespace or "default", self._clock, self._rng)
            for name in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
                if kept.metadata.HasField(name):
                    made.metadata.ClearField(name)
                    made.metadata.MergeFrom(_only(kept.metadata, name))
            if "status" in kept.DESCRIPTOR.fields_by_name and kept.HasField("status"):
                made.status.CopyFrom(kept.status)
            stored.append(self.store.put(made))
        return stored

    async def unary(self, service: str, method: str, request: bytes, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> bytes:
        """Answer one call."""
        cls = self._class(service)
        verb = _VERBS.get(method)
        if verb is None:
            raise MethodNotAllowed.of(facts_of(cls).plural, method)
        kind, answer = verb
        message: Any = kind.FromString(request)
        self.calls.append(Call(method, cls.DESCRIPTOR.name, getattr(message, "namespace", ""), _name(cls, message)))
        fault = self._fault(method, cls)
        if fault is not None and not fault.after:
            raise fault.error
        reply: Any = await answer(self, cls, message)
        if fault is not None:
            raise fault.error
        return bytes(reply.SerializeToString())

    async def stream(
        self, service: str, method: str, request: bytes, *, timeout_s: float | None = None
    ) -> AsyncGenerator[bytes]:
        """Answer a watch."""
        cls = self._class(service)
        if method != "Watch":
            raise MethodNotAllowed.of(facts_of(cls).plural, method)
        message = wire_pb2.WatchRequest.FromString(request)
        self.calls.append(Call(method, cls.DESCRIPTOR.name, message.namespace, ""))
        fault = self._fault(method, cls)
        if fault is not None:
            raise fault.error
        initial = message.send_initial_events or message.resource_version in ("", "0")
        batches = self.store.watch(
            _selection(cls, message),
            self._revision(message.resource_version),
            initial=initial,
            end_of_initial=message.send_initial_events,
            batch=self.batch_size,
        )
        async for events in batches:
            yield wire_pb2.WatchResponse(events=events).SerializeToString()

    async def close(self) -> None:
        """Break every watch."""
        self.cut_watches(ServiceUnavailable("the connection was closed"))

    def _class(self, service: str) -> type[Any]:
        info = self._classes.get(service)
        if info is None:
            raise NotFound.of_path()
        return info.message

    def _fault(self, method: str, cls: type[Any]) -> _Fault | None:
        for index, fault in enumerate(self._faults):
            if fault.method == method and fault.kind in ("", cls.DESCRIPTOR.name):
                self._faults[index : index + 1] = [replace(fault, times=fault.times - 1)] if fault.times > 1 else []
                return fault
        return None

    def _revision(self, text: str) -> int:
        if not text:
            return 0
        if not text.isdecimal():
            raise BadRequest(f"invalid resource version {text!r}")
        if int(text) > self.store.revision:
            raise Timeout(f"Too large resource version: {text}, current: {self.store.revision}")
        return int(text)

    def _existing(self, cls: type[Any], namespace: str, name: str) -> Any:
        obj = self.store.get(cls, namespace if facts_of(cls).namespaced else "", name)
        if obj is None:
            raise not_found(cls, name)
        return obj

    async def get(self, cls: type[Any], request: wire_pb2.GetRequest) -> wire_pb2.GetResponse:
        return wire_pb2.GetResponse(object=_raw(self._existing(cls, request.namespace, request.name)))

    async def list(self, cls: type[Any], request: wire_pb2.ListRequest) -> wire_pb2.ListResponse:
        self._revision(request.resource_version)
        if request.continue_token:
            if request.continue_token not in self._pages:
                raise Expired("The provided continue parameter is too old")
            revision, items = self._pages.pop(request.continue_token)
        else:
            revision, items = self.store.revision, [raw for _, raw in self.store.select(_selection(cls, request))]
        metadata = meta_pb2.ListMeta(resourceVersion=str(revision))
        if request.limit and len(items) > request.limit:
            token = f"{revision}-{len(self._pages)}-{self._rng.getrandbits(32):x}"
            self._pages[token] = (revision, items[request.limit :])
            setattr(metadata, "continue", token)
            metadata.remainingItemCount = len(items) - request.limit
            items = items[: request.limit]
        return wire_pb2.ListResponse(metadata=metadata.SerializeToString(), items=items)

    async def create(self, cls: type[Any], request: wire_pb2.CreateRequest) -> wire_pb2.CreateResponse:
        obj = self._create(cls, request.object, request.namespace, dry_run=request.dry_run)
        return wire_pb2.CreateResponse(object=_raw(obj))

    def _create(self, cls: type[Any], raw: bytes, namespace: str, *, dry_run: bool = False) -> Any:
        for _ in range(_NAME_TRIES):
            obj = cls.FromString(raw)
            generated = not obj.metadata.name
            fake_rules.prepare_create(obj, namespace, self._clock, self._rng)
            if self.store.get(cls, obj.metadata.namespace, obj.metadata.name) is None:
                return obj if dry_run else self.store.put(obj)
            if not generated:
                break
        facts = facts_of(cls)
        raise AlreadyExists.of(facts.plural, obj.metadata.name, group=facts.group)

    async def batch_create(self, cls: type[Any], request: wire_pb2.BatchCreateRequest) -> wire_pb2.BatchCreateResponse:
        if request.all_or_nothing and len(request.objects) > _MOST_TOGETHER:
            raise BadRequest(f"{len(request.objects)} objects are too many to be stored together")
        if request.all_or_nothing and not request.dry_run:
            tried = self._batch(cls, request, dry_run=True)
            if any(isinstance(one, APIError) for one in tried):
                refused = Conflict("nothing was stored, as all objects of the batch are or none, and one was refused")
                return _batch_results([one if isinstance(one, APIError) else refused for one in tried])
        return _batch_results(self._batch(cls, request, dry_run=request.dry_run))

    def _batch(self, cls: type[Any], request: wire_pb2.BatchCreateRequest, *, dry_run: bool) -> builtins.list[Any]:
        made: builtins.list[Any] = []
        for raw in request.objects:
            try:
                made.append(self._create(cls, raw, request.namespace, dry_run=dry_run))
            except APIError as err:
                made.append(err)
        return made

    async def update(self, cls: type[Any], request: wire_pb2.UpdateRequest) -> wire_pb2.UpdateResponse:
        merge = fake_rules.merge_status if request.subresource == "status" else fake_rules.merge_update
        new = cls.FromString(request.object)
        old = self._existing(cls, request.namespace, request.name or new.metadata.name)
        return wire_pb2.UpdateResponse(object=_raw(self._store_update(merge(new, old), old, dry_run=request.dry_run)))

    async def update_status(self, cls: type[Any], request: wire_pb2.UpdateRequest) -> wire_pb2.UpdateResponse:
        if "status" not in facts_of(cls).subresources:
            raise NotFound.of_path()
        request.subresource = "status"
        return await self.update(cls, request)

    def _store_update(self, new: Any, old: Any, *, dry_run: bool = False) -> Any:
        if new is old or dry_run:
            return new
        return self.store.remove(new) if fake_rules.is_finished(new) else self.store.put(new)

    async def patch(self, cls: type[Any], request: wire_pb2.PatchRequest) -> wire_pb2.PatchResponse:
        old = self.store.get(cls, request.namespace if facts_of(cls).namespaced else "", request.name)
        if old is None:
            if request.patch_type != wire_pb2.PATCH_TYPE_APPLY:
                raise not_found(cls, request.name)
            made = fake_patch.applied(cls, request.patch, request.name)
            obj = self._create(cls, made.SerializeToString(), request.namespace, dry_run=request.dry_run)
            return wire_pb2.PatchResponse(object=_raw(obj))
        new = fake_patch.patched(old, request.patch_type, request.patch)
        merge = fake_rules.merge_status if request.subresource == "status" else fake_rules.merge_update
        return wire_pb2.PatchResponse(object=_raw(self._store_update(merge(new, old), old, dry_run=request.dry_run)))

    async def batch_patch(self, cls: type[Any], request: wire_pb2.BatchPatchRequest) -> wire_pb2.BatchPatchResponse:
        if request.patch_type == wire_pb2.PATCH_TYPE_APPLY:
            raise BadRequest("an apply is of one object: it may create it")
        singles = [
            wire_pb2.PatchRequest(
                namespace=request.namespace,
                name=item.name,
                patch_type=request.patch_type,
                patch=item.patch,
                subresource=request.subresource,
                dry_run=request.dry_run,
            )
            for item in request.patches
        ]
        return wire_pb2.BatchPatchResponse(statuses=[await _status_of(self.patch(cls, one)) for one in singles])

    async def batch_delete(self, cls: type[Any], request: wire_pb2.BatchDeleteRequest) -> wire_pb2.BatchDeleteResponse:
        reply = wire_pb2.BatchDeleteResponse()
        for item in request.deletes:
            options = meta_pb2.DeleteOptions.FromString(request.options)
            if item.uid:
                options.preconditions.uid = item.uid
            one = wire_pb2.DeleteRequest(
                namespace=request.namespace, name=item.name, options=options.SerializeToString()
            )
            reply.statuses.append(await _status_of(self.delete(cls, one)))
        return reply

    async def delete(self, cls: type[Any], request: wire_pb2.DeleteRequest) -> wire_pb2.DeleteResponse:
        obj = self._existing(cls, request.namespace, request.name)
        options = meta_pb2.DeleteOptions.FromString(request.options)
        return wire_pb2.DeleteResponse(object=_raw(self._delete(obj, options)))

    def _delete(self, obj: Any, options: meta_pb2.DeleteOptions) -> Any:
        before = _raw(obj)
        if fake_rules.mark_deleted(obj, options, self._clock):
            return self.store.remove(obj)
        return self.store.put(obj) if _raw(obj) != before else obj

    async def delete_collection(
        self, cls: type[Any], request: wire_pb2.DeleteCollectionRequest
    ) -> wire_pb2.DeleteCollectionResponse:
        options = meta_pb2.DeleteOptions.FromString(request.options)
        for _, raw in self.store.select(_selection(cls, request)):
            self._delete(cls.FromString(raw), options)
        return wire_pb2.DeleteCollectionResponse()

    async def batch_bind(self, cls: type[Any], request: wire_pb2.BatchBindRequest) -> wire_pb2.BatchBindResponse:
        return wire_pb2.BatchBindResponse(statuses=[self._bind(cls, raw) for raw in request.bindings])

    async def bind(self, cls: type[Any], request: wire_pb2.CreateRequest) -> wire_pb2.CreateResponse:
        return wire_pb2.CreateResponse(object=self._bind(cls, request.object))

    def _bind(self, cls: type[Any], raw: bytes) -> bytes:
        binding = binding_pb2.Binding.FromString(raw)
        try:
            pod = self._existing(cls, binding.metadata.namespace, binding.metadata.name)
            fake_rules.bind_pod(pod, binding, self._clock)
        except APIError as err:
            return err.to_status().SerializeToString()
        self.store.put(pod)
        return meta_pb2.Status(status="Success", code=201).SerializeToString()

    async def evict(self, cls: type[Any], request: wire_pb2.CreateRequest) -> wire_pb2.CreateResponse:
        pod = self._existing(cls, request.namespace, request.name)
        self._delete(pod, meta_pb2.DeleteOptions())
        return wire_pb2.CreateResponse(object=request.object)

    async def get_scale(self, cls: type[Any], request: wire_pb2.GetRequest) -> wire_pb2.GetResponse:
        return wire_pb2.GetResponse(object=_raw(_scale(self._existing(cls, request.namespace, request.name))))

    async def update_scale(self, cls: type[Any], request: wire_pb2.UpdateRequest) -> wire_pb2.UpdateResponse:
        old = self._existing(cls, request.namespace, request.name)
        new = type(old)()
        new.CopyFrom(old)
        new.spec.replicas = autoscaling_pb2.Scale.FromString(request.object).spec.replicas
        return wire_pb2.UpdateResponse(object=_raw(_scale(self._store_update(fake_rules.merge_update(new, old), old))))


_Verb = Callable[[FakeServer, type[Any], Any], Awaitable[Any]]
_VERBS: dict[str, tuple[type[Any], _Verb]] = {
    "Get": (wire_pb2.GetRequest, FakeServer.get),
    "List": (wire_pb2.ListRequest, FakeServer.list),
    "Create": (wire_pb2.CreateRequest, FakeServer.create),
    "BatchCreate": (wire_pb2.BatchCreateRequest, FakeServer.batch_create),
    "Update": (wire_pb2.UpdateRequest, FakeServer.update),
    "UpdateStatus": (wire_pb2.UpdateRequest, FakeServer.update_status),
    "Patch": (wire_pb2.PatchRequest, FakeServer.patch),
    "BatchPatch": (wire_pb2.BatchPatchRequest, FakeServer.batch_patch),
    "BatchDelete": (wire_pb2.BatchDeleteRequest, FakeServer.batch_delete),
    "Delete": (wire_pb2.DeleteRequest, FakeServer.delete),
    "DeleteCollection": (wire_pb2.DeleteCollectionRequest, FakeServer.delete_collection),
    "Bind": (wire_pb2.CreateRequest, FakeServer.bind),
    "BatchBind": (wire_pb2.BatchBindRequest, FakeServer.batch_bind),
    "Evict": (wire_pb2.CreateRequest, FakeServer.evict),
    "GetScale": (wire_pb2.GetRequest, FakeServer.get_scale),
    "UpdateScale": (wire_pb2.UpdateRequest, FakeServer.update_scale),
}


async def _status_of(single: Awaitable[Any]) -> bytes:
    """What became of one call of a batch."""
    try:
        await single
    except APIError as err:
        return err.to_status().SerializeToString()
    return meta_pb2.Status(status="Success", code=200).SerializeToString()


def _raw(obj: Any) -> bytes:
    return bytes(obj.SerializeToString(deterministic=True))


def _name(cls: type[Any], message: Any) -> str:
    name = getattr(message, "name", "")
    if not name and isinstance(message, wire_pb2.CreateRequest):
        name = cls.FromString(message.object).metadata.name
    return str(name)


def not_found(cls: type[Any], name: str) -> NotFound:
    """What the server says where it has no object of that class and name."""
    facts = facts_of(cls)
    return NotFound.of(facts.plural, name, group=facts.group)


def _selection(cls: type[Any], request: Any) -> Selection:
    try:
        labels, fields = Selector.parse(request.label_selector), FieldSelector.parse(request.field_selector)
    except ValueError as err:
        raise BadRequest(f"unable to parse selector: {err}") from err
    return Selection(cls, request.namespace, labels, fields)


def _scale(obj: Any) -> autoscaling_pb2.Scale:
    scale = autoscaling_pb2.Scale()
    scale.metadata.name, scale.metadata.namespace = obj.metadata.name, obj.metadata.namespace
    scale.metadata.uid, scale.metadata.resourceVersion = obj.metadata.uid, obj.metadata.resourceVersion
    scale.spec.replicas, scale.status.replicas = obj.spec.replicas, obj.status.replicas
    selector = obj.spec.selector
    is_map = obj.spec.DESCRIPTOR.fields_by_name["selector"].is_repeated
    scale.status.selector = str(Selector.from_set(dict(selector)) if is_map else from_label_selector(selector))
    return scale


def _only(metadata: Any, name: str) -> Any:
    kept = meta_pb2.ObjectMeta()
    value = getattr(metadata, name)
    if hasattr(value, "CopyFrom"):
        getattr(kept, name).CopyFrom(value)
    else:
        setattr(kept, name, value)
    return kept


def _batch_results(made: list[Any]) -> wire_pb2.BatchCreateResponse:
    reply = wire_pb2.BatchCreateResponse()
    for one in made:
        if isinstance(one, APIError):
            reply.results.add(status=one.to_status().SerializeToString())
        else:
            reply.results.add(object=_raw(one))
    return reply
