"""The gRPC service of one resource: wire messages in, ready bytes out, the same endpoints as REST."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from tiphys.api.meta.v1 import meta_pb2
from tiphys.apiserver.v1 import wire_pb2
from tiphys_apimachinery.codec.json_codec import FieldSink, check_sayable, from_json, strict_error
from tiphys_apimachinery.dynamic import DynamicObject
from tiphys_apimachinery.errors import APIError, BadRequest, RequestEntityTooLarge
from tiphys_apiserver.audit.bodies import Wire
from tiphys_apiserver.endpoints import create as creating
from tiphys_apiserver.endpoints import delete as deleting
from tiphys_apiserver.endpoints import get as getting
from tiphys_apiserver.endpoints import list as listing
from tiphys_apiserver.endpoints import patch as patching
from tiphys_apiserver.endpoints import update as updating
from tiphys_apiserver.endpoints.converted_watch import converted_batch
from tiphys_apiserver.endpoints.hall import Hall
from tiphys_apiserver.endpoints.watch import converting
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.rest.exchange import MAX_BODY_BYTES
from tiphys_apiserver.rest.render import list_raw
from tiphys_apiserver.rpc.context import make_call
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.server.chain import Chain
from tiphys_apiserver.server.request_info import selected_name
from tiphys_apiserver.storage.list_query import NOT_OLDER_THAN, ListQuery, WatchQuery
from tiphys_apiserver.storage.objects import varint
from tiphys_apiserver.storage.watch_event import EventBatch, grpc_frame

Request = Any
Context = Any
_PATCH_KINDS: Mapping[int, patching.PatchKind] = {
    wire_pb2.PATCH_TYPE_JSON: patching.PatchKind.JSON,
    wire_pb2.PATCH_TYPE_MERGE: patching.PatchKind.MERGE,
    wire_pb2.PATCH_TYPE_STRATEGIC: patching.PatchKind.STRATEGIC,
    wire_pb2.PATCH_TYPE_APPLY: patching.PatchKind.APPLY,
}


def only_field(raw: bytes, number: int = 1) -> bytes:
    """A message with one length-delimited field."""
    return b"".join((varint(number << 3 | 2), varint(len(raw)), raw))


_DONE = only_field(meta_pb2.Status(status="Success", code=200).SerializeToString())


class ResourceService:
    """Methods of one resource. Handlers take wire messages and answer bytes."""

    def __init__(self, hall: Hall, chain: Chain, served: Served) -> None:
        self.hall = hall
        self.chain = chain
        self.served = served
        self._frames = converting(served, grpc_frame) if served.converter is not None else "grpc"

    def methods(self) -> dict[str, Any]:
        """Handler by method name; a method whose verb the resource does not have is left out."""
        verbs = self.served.info.verbs
        wire: dict[str, tuple[str, Any, type[Message]]] = {
            "Get": ("get", self.get, wire_pb2.GetRequest),
            "List": ("list", self.list, wire_pb2.ListRequest),
            "Create": ("create", self.create, wire_pb2.CreateRequest),
            "BatchCreate": ("create", self.batch_create, wire_pb2.BatchCreateRequest),
            "Update": ("update", self.update, wire_pb2.UpdateRequest),
            "Patch": ("patch", self.patch, wire_pb2.PatchRequest),
            "BatchPatch": ("patch", self.batch_patch, wire_pb2.BatchPatchRequest),
            "Delete": ("delete", self.delete, wire_pb2.DeleteRequest),
            "BatchDelete": ("delete", self.batch_delete, wire_pb2.BatchDeleteRequest),
            "DeleteCollection": ("deletecollection", self.delete_collection, wire_pb2.DeleteCollectionRequest),
        }
        found = {
            name: grpc.unary_unary_rpc_method_handler(handler, request_deserializer=cls.FromString)
            for name, (verb, handler, cls) in wire.items()
            if verb in verbs
        }
        if "watch" in verbs:
            found["Watch"] = grpc.unary_stream_rpc_method_handler(
                self.watch, request_deserializer=wire_pb2.WatchRequest.FromString
            )
        if "status" in self.served.info.subresources:
            found["UpdateStatus"] = grpc.unary_unary_rpc_method_handler(
                self.update_status, request_deserializer=wire_pb2.UpdateRequest.FromString
            )
            found["BatchUpdateStatus"] = grpc.unary_unary_rpc_method_handler(
                self.batch_update_status, request_deserializer=wire_pb2.BatchUpdateStatusRequest.FromString
            )
        return found

    # -- reading

    async def get(self, request: Request, context: Context) -> bytes:
        """One object."""
        call = make_call(context, self.served, "get", namespace=request.namespace, name=request.name)
        cached = await self.chain.run(call, lambda: getting.get(self.served, call, request.resource_version))
        return only_field(cached.raw)

    async def list(self, request: Request, context: Context) -> bytes:
        """A page of objects."""
        call = self._selecting(make_call(context, self.served, "list", namespace=request.namespace), request)
        call.limit = request.limit
        query = ListQuery(
            resource_version=request.resource_version,
            resource_version_match=request.resource_version_match,
            limit=request.limit,
            continue_token=request.continue_token,
        )
        page = await self.chain.run(call, lambda: listing.list_objects(self.served, call, query))
        return b"".join(list_raw(page)[0])

    async def watch(self, request: Request, context: Context) -> AsyncIterator[bytes]:
        """Batches of events."""
        call = self._selecting(make_call(context, self.served, "watch", namespace=request.namespace), request)
        initial = True if request.send_initial_events else None
        query = WatchQuery(
            resource_version=request.resource_version,
            resource_version_match=request.resource_version_match or (NOT_OLDER_THAN if initial else ""),
            allow_bookmarks=request.allow_watch_bookmarks or bool(initial),
            send_initial_events=initial,
        )
        call.sends_initial_events = bool(initial)
        selection, rest = listing.divided(self.served, listing.selection_of(self.served, call))
        call.streams = True
        stream = await self.chain.run(call, lambda: self.served.store.cacher.stream(selection, query))
        try:
            with stream, self.chain.streaming(call):
                # Answer at once: a caller may wait for the head to know that its watch is on.
                await context.send_initial_metadata(())
                async for batch in stream:
                    shown: EventBatch | None = batch
                    if self.served.remote is not None:
                        shown = await converted_batch(self.served, batch, rest)
                    if shown is not None:
                        yield shown.frame(self._frames)
        finally:
            if call.record is not None:
                call.record.ended()

    @staticmethod
    def _selecting(call: Call, request: Request) -> Call:
        call.label_selector = request.label_selector
        call.field_selector = request.field_selector
        if request.field_selector:
            # As over REST: one object chosen by its name is a request for that name, which rules can allow.
            call.info = replace(call.info, name=selected_name(request.field_selector))
        return call

    # -- writing

    def _decode(self, raw: bytes, field_validation: str) -> Any:
        # Each object by itself, as over REST: a batch may be larger.
        if len(raw) > MAX_BODY_BYTES:
            raise RequestEntityTooLarge.of(f"limit is {MAX_BODY_BYTES}")
        info = self.served.info
        return decode_message(info.message, info.version, info.kind, raw, field_validation)

    async def create(self, request: Request, context: Context) -> bytes:
        """Store one object."""
        obj = self._decode(request.object, request.field_validation)
        namespace = request.namespace or obj.metadata.namespace
        call = make_call(context, self.served, "create", namespace=namespace)
        call.sent = Wire(self.served.info.message, (request.object,))
        _write_options(call, request)
        stored = await self.chain.run(call, lambda: creating.create(self.hall, self.served, call, obj))
        return only_field(stored.SerializeToString())

    async def batch_create(self, request: Request, context: Context) -> bytes:
        """Store many objects; each has its own result."""
        call = make_call(context, self.served, "create", namespace=request.namespace)
        call.dry_run, call.field_manager = request.dry_run, request.field_manager
        call.sent = Wire(self.served.info.message, request.objects)
        objects = [self._decode(raw, "") for raw in request.objects]
        together = request.all_or_nothing
        results = await self.chain.run(
            call, lambda: creating.create_batch(self.hall, self.served, call, objects, together=together)
        )
        return _batch_results(results)

    async def update(self, request: Request, context: Context) -> bytes:
        """Replace one object, or one subresource of it."""
        return await self._update(request, context, request.subresource)

    async def update_status(self, request: Request, context: Context) -> bytes:
        """Replace the status of one object."""
        return await self._update(request, context, "status")

    async def batch_update_status(self, request: Request, context: Context) -> bytes:
        """Replace the statuses of many objects of one namespace; each has its own result."""
        call = make_call(context, self.served, "update", namespace=request.namespace, subresource="status")
        call.dry_run, call.field_manager = request.dry_run, request.field_manager
        call.sent = Wire(self.served.info.message, request.objects)
        objects = [self._decode(raw, "") for raw in request.objects]
        results = await self.chain.run(call, lambda: updating.update_batch(self.hall, self.served, call, objects))
        return _batch_results(results)

    async def _update(self, request: Request, context: Context, subresource: str) -> bytes:
        if subresource and subresource not in updating.OBJECT_SUBRESOURCES & set(self.served.info.subresources):
            raise BadRequest(f"{self.served.info.plural} have no subresource {subresource!r} that can be updated")
        obj = self._decode(request.object, request.field_validation)
        call = make_call(
            context,
            self.served,
            "update",
            namespace=request.namespace or obj.metadata.namespace,
            name=request.name or obj.metadata.name,
            subresource=subresource,
        )
        call.sent = Wire(self.served.info.message, (request.object,))
        _write_options(call, request)
        stored, _ = await self.chain.run(call, lambda: updating.update(self.hall, self.served, call, obj))
        return only_field(stored.SerializeToString())

    async def patch(self, request: Request, context: Context) -> bytes:
        """Change parts of one object."""
        kind = self._patch_kind(request)
        call = make_call(
            context,
            self.served,
            "patch",
            namespace=request.namespace,
            name=request.name,
            subresource=request.subresource,
        )
        call.sent = Wire(None, (request.patch,))
        _write_options(call, request)
        wanted = patching.Patch(kind, request.patch, request.force)
        stored, _ = await self.chain.run(call, lambda: patching.patch(self.hall, self.served, call, wanted))
        return only_field(stored.SerializeToString())

    async def batch_patch(self, request: Request, context: Context) -> bytes:
        """Change parts of many objects of one namespace; each has its own Status."""
        kind = self._patch_kind(request)
        if kind is patching.PatchKind.APPLY:
            raise BadRequest("an apply is of one object: it may create it")
        call = make_call(context, self.served, "patch", namespace=request.namespace, subresource=request.subresource)
        call.sent = Wire(None, [item.patch for item in request.patches], names=[item.name for item in request.patches])
        _write_options(call, request)
        wanted = [(item.name, patching.Patch(kind, item.patch)) for item in request.patches]
        results = await self.chain.run(call, lambda: patching.patch_batch(self.hall, self.served, call, wanted))
        return _batch_statuses(results)

    def _patch_kind(self, request: Request) -> patching.PatchKind:
        kind = _PATCH_KINDS.get(request.patch_type)
        if kind is None:
            raise BadRequest("patch_type is not given")
        if request.subresource and request.subresource not in self.served.info.subresources:
            raise BadRequest(f"{self.served.info.plural} have no subresource {request.subresource!r}")
        return kind

    async def delete(self, request: Request, context: Context) -> bytes:
        """Delete one object."""
        call = make_call(context, self.served, "delete", namespace=request.namespace, name=request.name)
        call.sent = Wire(meta_pb2.DeleteOptions, (request.options,))
        options = _delete_options(request.options)
        deleted = await self.chain.run(call, lambda: deleting.delete(self.hall, self.served, call, options))
        return only_field(deleted.object.SerializeToString())

    async def batch_delete(self, request: Request, context: Context) -> bytes:
        """Delete many objects of one namespace; each has its own Status."""
        call = make_call(context, self.served, "delete", namespace=request.namespace)
        names = [item.name for item in request.deletes]
        call.sent = Wire(meta_pb2.DeleteOptions, (request.options,), names=names)
        options = _delete_options(request.options)
        wanted = [(item.name, item.uid) for item in request.deletes]
        results = await self.chain.run(
            call, lambda: deleting.delete_batch(self.hall, self.served, call, wanted, options=options)
        )
        return _batch_statuses(results)

    async def delete_collection(self, request: Request, context: Context) -> bytes:
        """Delete every object chosen."""
        call = make_call(context, self.served, "deletecollection", namespace=request.namespace)
        call = self._selecting(call, request)
        call.sent = Wire(meta_pb2.DeleteOptions, (request.options,))
        options = _delete_options(request.options)
        gone = await self.chain.run(
            call, lambda: deleting.delete_collection(self.hall, self.served, call, ListQuery(), options=options)
        )
        return b"".join([only_field(b""), *(only_field(obj.SerializeToString(), 2) for obj in gone)])


def _batch_results(results: Iterable[Any]) -> bytes:
    """The wire form of BatchResult, one behind the other: the object, or the Status of the error."""
    pieces = []
    for result in results:
        if isinstance(result, APIError):
            pieces.append(only_field(only_field(result.to_status().SerializeToString(), 2)))
        else:
            pieces.append(only_field(only_field(result.SerializeToString())))
    return b"".join(pieces)


def _batch_statuses(results: Iterable[APIError | None]) -> bytes:
    """A Status for each, one behind the other."""
    return b"".join([_DONE if err is None else only_field(err.to_status().SerializeToString()) for err in results])


def decode_message(cls: type[Message], version: str, kind: str, raw: bytes, field_validation: str) -> Any:
    """The message in bytes. Raises BadRequest, with Strict also for fields that the schema does not have."""
    try:
        obj: Any = cls.FromString(raw)
    except DecodeError as err:
        raise BadRequest(f'{kind} in version "{version}" cannot be handled as a {kind}: {err}') from err
    if isinstance(obj, DynamicObject):
        check_sayable(obj.metadata)
        return _pruned(obj, field_validation)
    check_sayable(obj)
    if field_validation == "Strict":
        unknown = sorted(set(_unknown_fields(obj, "")))
        if unknown:
            text = ", ".join(f'unknown field "{path}"' for path in unknown)
            raise BadRequest(
                f'{kind} in version "{version}" cannot be handled as a {kind}: strict decoding error: {text}'
            )
    return obj


def _pruned(obj: DynamicObject, field_validation: str) -> DynamicObject:
    """A custom object without what its schema does not know. Raises BadRequest as decode_message does."""
    cls: Any = type(obj)
    sink = FieldSink()
    try:
        document = {"metadata": None, **obj.content}
    except (ValueError, TypeError) as err:
        kind = obj.KIND.kind
        raise BadRequest(f'{kind} in version "{obj.KIND.version}" cannot be handled as a {kind}: {err}') from err
    read: DynamicObject = from_json(cls, document, sink)
    read.metadata.CopyFrom(obj.metadata)
    error = strict_error(cls, sink) if field_validation == "Strict" else None
    if error is not None:
        raise error
    return read


def _unknown_fields(message: Any, path: str) -> list[str]:
    """Paths of fields that came with numbers the schema does not know."""
    prefix = f"{path}." if path else ""
    unknown: Any = UnknownFieldSet(message)
    found = [f"{prefix}{field.field_number}" for field in unknown]
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for index, part in enumerate(value if field.is_repeated else (value,)):
            where = f"{prefix}{field.name}" + (f"[{index}]" if field.is_repeated else "")
            found += _unknown_fields(part, where)
    return found


def _write_options(call: Call, request: Request) -> None:
    call.dry_run = request.dry_run
    call.field_manager = request.field_manager
    call.field_validation = request.field_validation


def _delete_options(raw: bytes) -> meta_pb2.DeleteOptions:
    try:
        return meta_pb2.DeleteOptions.FromString(raw)
    except DecodeError as err:
        raise BadRequest(f"options are no DeleteOptions: {err}") from err
