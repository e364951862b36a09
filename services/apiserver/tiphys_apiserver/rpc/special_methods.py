"""Methods that some services have besides the common ones: bindings, evictions, scale, tokens, reviews."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError

from tiphys.api.authentication.v1 import authentication_pb2
from tiphys.api.autoscaling.v1 import autoscaling_pb2
from tiphys.api.core.v1 import binding_pb2
from tiphys.api.policy.v1 import policy_pb2
from tiphys.apiserver.v1 import wire_pb2
from tiphys_apiserver.audit.bodies import Wire
from tiphys_apiserver.endpoints import bind as binding
from tiphys_apiserver.endpoints import eviction, scale
from tiphys_apiserver.endpoints.hall import Answerer
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_apiserver.rpc.context import make_call
from tiphys_apiserver.rpc.resource_service import ResourceService, decode_message, only_field

_BOUND = only_field(binding.success().SerializeToString())
Request = Any
Context = Any
# Handler by method name; grpc's class is generic for type checkers only.
Methods = dict[str, Any]


def unary(handler: Any, request: Any) -> Any:
    """A unary method whose handler takes the wire message and answers bytes."""
    return grpc.unary_unary_rpc_method_handler(handler, request_deserializer=request.FromString)


def _binding(raw: bytes) -> binding_pb2.Binding:
    """A binding of a batch. Of one that is plain ASCII all that gets into the pod can be said in JSON."""
    if raw.isascii():
        try:
            return binding_pb2.Binding.FromString(raw)
        except DecodeError:
            # Told of below.
            pass
    obj: binding_pb2.Binding = decode_message(binding_pb2.Binding, "v1", "Binding", raw, "")
    return obj


class PodMethods:
    """Bind, BatchBind and Evict."""

    def __init__(self, service: ResourceService, objects: ObjectAccess) -> None:
        self._service = service
        self._objects = objects

    def methods(self) -> Methods:
        """Handler by method name."""
        return {
            "Bind": unary(self.bind, wire_pb2.CreateRequest),
            "BatchBind": unary(self.batch_bind, wire_pb2.BatchBindRequest),
            "Evict": unary(self.evict, wire_pb2.CreateRequest),
        }

    async def bind(self, request: Request, context: Context) -> bytes:
        """Put a pod on a node."""
        service = self._service
        obj = decode_message(binding_pb2.Binding, "v1", "Binding", request.object, request.field_validation)
        call = make_call(
            context,
            service.served,
            "create",
            namespace=request.namespace or obj.metadata.namespace,
            name=request.name or obj.metadata.name,
            subresource="binding",
        )
        call.dry_run = request.dry_run
        call.sent = Wire(binding_pb2.Binding, (request.object,))
        status = await service.chain.run(call, lambda: binding.bind(service.hall, service.served, call, obj))
        return only_field(status.SerializeToString())

    async def batch_bind(self, request: Request, context: Context) -> bytes:
        """Put many pods on nodes. Who binds in several namespaces at once must be allowed to in all."""
        service = self._service
        objects = [_binding(raw) for raw in request.bindings]
        namespaces = {obj.metadata.namespace for obj in objects}
        namespace = namespaces.pop() if len(namespaces) == 1 else ""
        call = make_call(context, service.served, "create", namespace=namespace, subresource="binding")
        call.sent = Wire(binding_pb2.Binding, request.bindings)
        statuses = await service.chain.run(
            call, lambda: binding.bind_batch(service.hall, service.served, call, objects)
        )
        return b"".join([_BOUND if status is None else only_field(status.SerializeToString()) for status in statuses])

    async def evict(self, request: Request, context: Context) -> bytes:
        """Delete a pod if its budgets allow."""
        service = self._service
        obj = decode_message(policy_pb2.Eviction, "v1", "Eviction", request.object, request.field_validation)
        call = make_call(
            context,
            service.served,
            "create",
            namespace=request.namespace or obj.metadata.namespace,
            name=request.name or obj.metadata.name,
            subresource="eviction",
        )
        call.dry_run = request.dry_run
        call.sent = Wire(policy_pb2.Eviction, (request.object,))
        await service.chain.run(
            call, lambda: eviction.evict(service.hall, service.served, call, obj, objects=self._objects)
        )
        return only_field(obj.SerializeToString())


class ScaleMethods:
    """GetScale and UpdateScale."""

    def __init__(self, service: ResourceService) -> None:
        self._service = service

    def methods(self) -> Methods:
        """Handler by method name."""
        return {
            "GetScale": unary(self.get_scale, wire_pb2.GetRequest),
            "UpdateScale": unary(self.update_scale, wire_pb2.UpdateRequest),
        }

    async def get_scale(self, request: Request, context: Context) -> bytes:
        """The wanted and seen replicas."""
        service = self._service
        call = make_call(
            context, service.served, "get", namespace=request.namespace, name=request.name, subresource="scale"
        )
        found = await service.chain.run(call, lambda: scale.get_scale(service.served, call))
        return only_field(found.SerializeToString())

    async def update_scale(self, request: Request, context: Context) -> bytes:
        """Set the wanted replicas."""
        service = self._service
        obj = decode_message(autoscaling_pb2.Scale, "v1", "Scale", request.object, request.field_validation)

        async def replace(_current: Any) -> Any:
            return obj

        call = make_call(
            context,
            service.served,
            "update",
            namespace=request.namespace or obj.metadata.namespace,
            name=request.name or obj.metadata.name,
            subresource="scale",
        )
        call.dry_run = request.dry_run
        call.sent = Wire(autoscaling_pb2.Scale, (request.object,))
        stored = await service.chain.run(call, lambda: scale.update_scale(service.hall, service.served, call, replace))
        return only_field(stored.SerializeToString())


class TokenMethods:
    """CreateToken of service accounts."""

    def __init__(self, service: ResourceService, answerer: Answerer) -> None:
        self._service = service
        self._answerer = answerer

    def methods(self) -> Methods:
        """Handler by method name."""
        return {"CreateToken": unary(self.create_token, wire_pb2.CreateRequest)}

    async def create_token(self, request: Request, context: Context) -> bytes:
        """A token for the account that the request names."""
        service = self._service
        obj = decode_message(
            authentication_pb2.TokenRequest, "v1", "TokenRequest", request.object, request.field_validation
        )
        call = make_call(
            context,
            service.served,
            "create",
            namespace=request.namespace,
            name=request.name or obj.metadata.name,
            subresource="token",
        )
        call.sent = Wire(authentication_pb2.TokenRequest, (request.object,))
        made = await service.chain.run(
            call,
            lambda: self._answerer.create(call.user, obj, namespace=call.info.namespace, name=call.info.name),
        )
        return only_field(made.SerializeToString())
