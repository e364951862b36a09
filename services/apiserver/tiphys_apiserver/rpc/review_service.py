"""Services of resources that are answered and not stored; bindings among them."""

from __future__ import annotations

from typing import Any

from tiphys.apiserver.v1 import wire_pb2
from tiphys_apimachinery.errors import BadRequest
from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.audit.bodies import Wire
from tiphys_apiserver.endpoints import bind as binding
from tiphys_apiserver.endpoints.hall import Answerer, Hall
from tiphys_apiserver.endpoints.reader import Reader
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.rpc.context import credentials_of, make_call
from tiphys_apiserver.rpc.resource_service import decode_message, only_field
from tiphys_apiserver.rpc.special_methods import Methods, unary
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.server.chain import Chain
from tiphys_apiserver.server.request_info import RequestInfo


class ReviewService:
    """Create of one kind of review."""

    def __init__(self, chain: Chain, info: ResourceInfo, answerer: Answerer) -> None:
        self._chain = chain
        self._info = info
        self._answerer = answerer

    def methods(self) -> Methods:
        """Handler by method name."""
        return {"Create": unary(self.create, wire_pb2.CreateRequest)}

    async def create(self, request: Any, context: Any) -> bytes:
        """Answer a review."""
        info = self._info
        obj = decode_message(info.message, info.version, info.kind, request.object, request.field_validation)
        namespace = request.namespace if info.namespaced else ""
        about = RequestInfo("", "create", True, info.group, info.version, namespace, info.plural)
        call = Call(about, credentials_of(context), door=context)
        call.sent = Wire(info.message, (request.object,))
        made = await self._chain.run(call, lambda: self._answerer.create(call.user, obj, namespace=namespace, name=""))
        return only_field(made.SerializeToString())


class ReadService:
    """Get and List of a resource that is not stored."""

    def __init__(self, chain: Chain, reader: Reader) -> None:
        self._chain = chain
        self._reader = reader

    def methods(self) -> Methods:
        """Handler by method name."""
        return {"Get": unary(self.get, wire_pb2.GetRequest), "List": unary(self.list, wire_pb2.ListRequest)}

    async def get(self, request: Any, context: Any) -> bytes:
        """One object."""
        call = make_call(context, self._reader, "get", namespace=request.namespace, name=request.name)
        found = await self._chain.run(call, lambda: self._reader.get(call))
        return only_field(found.SerializeToString())

    async def list(self, request: Any, context: Any) -> bytes:
        """The objects that the selectors choose."""
        call = make_call(context, self._reader, "list", namespace=request.namespace)
        call.label_selector, call.field_selector = request.label_selector, request.field_selector
        found = await self._chain.run(call, lambda: self._reader.list(call))
        return b"".join([only_field(b""), *(only_field(one.SerializeToString(), 2) for one in found)])


class BindingService:
    """Create of bindings, the older way to bind a pod."""

    def __init__(self, hall: Hall, chain: Chain, pods: Served, info: ResourceInfo) -> None:
        self._hall = hall
        self._chain = chain
        self._pods = pods
        self._info = info

    def methods(self) -> Methods:
        """Handler by method name."""
        return {"Create": unary(self.create, wire_pb2.CreateRequest)}

    async def create(self, request: Any, context: Any) -> bytes:
        """Put a pod on a node."""
        obj = decode_message(self._info.message, "v1", "Binding", request.object, request.field_validation)
        if not obj.metadata.name:
            raise BadRequest("name is required")
        namespace = request.namespace or obj.metadata.namespace
        about = RequestInfo("", "create", True, "", "v1", namespace, "bindings")
        call = Call(about, credentials_of(context), door=context)
        call.sent = Wire(self._info.message, (request.object,))
        await self._chain.run(call, lambda: binding.bind(self._hall, self._pods, call, obj))
        return only_field(obj.SerializeToString())
