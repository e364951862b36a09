"""What is asked for beside objects: reviews and tokens, scale, bindings, evictions, and roads to kubelets."""

from __future__ import annotations

from typing import Any

from tiphys.api.autoscaling.v1 import autoscaling_pb2
from tiphys.api.core.v1 import binding_pb2
from tiphys.api.policy.v1 import policy_pb2
from tiphys_apimachinery.errors import BadRequest, NotFound
from tiphys_apimachinery.scheme import Scheme
from tiphys_apiserver.endpoints import bind as binding
from tiphys_apiserver.endpoints import eviction, scale
from tiphys_apiserver.endpoints.hall import Hall, refuse_verb
from tiphys_apiserver.endpoints.patch import Patch, patch_object, read_document
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.rest.decode import decode_object
from tiphys_apiserver.rest.exchange import Answer, Exchange
from tiphys_apiserver.rest.kubelet import KubeletProxy
from tiphys_apiserver.rest.negotiate import body_media, choose_format
from tiphys_apiserver.rest.read_options import read_patch
from tiphys_apiserver.rest.render import message_answer
from tiphys_apiserver.server.call import Call

_SCALE = ("autoscaling/v1", "Scale")
_KUBELET = frozenset({"exec", "attach", "portforward", "log"})


class Subresources:
    """Serves what is no object of a stored kind."""

    def __init__(self, hall: Hall, scheme: Scheme, objects: ObjectAccess, kubelets: KubeletProxy) -> None:
        self._hall = hall
        self._scheme = scheme
        self._objects = objects
        self._kubelets = kubelets

    def answers(self, call: Call) -> bool:
        """Whether the call is for something that is answered and not stored."""
        info = call.info
        if info.resource == "bindings" and not info.api_group and not info.subresource:
            return True
        return _answerer_key(call) in self._hall.answerers

    async def answer(self, exchange: Exchange, call: Call) -> Answer:
        """Answer a review, a token request or a binding. Raises MethodNotAllowed for all but create."""
        info = call.info
        if info.verb != "create":
            raise refuse_verb(call)
        if info.resource == "bindings":
            served = self._hall.table.find("", "v1", "pods")
            if served is None:
                raise NotFound.of_path()
            return await self._bind(exchange, call, served)
        api_version, kind = self._kind_of(call)
        found = self._scheme.kind(api_version, kind)
        if found is None:
            raise NotFound.of_path()
        obj = await self._read(exchange, call, found.message, api_version=api_version, kind=kind)
        answerer = self._hall.answerers[_answerer_key(call)]
        made = await answerer.create(call.user, obj, namespace=info.namespace, name=info.name)
        return self._message(exchange, made, api_version, kind, code=201)

    def _kind_of(self, call: Call) -> tuple[str, str]:
        info = call.info
        resource = self._scheme.by_resource(info.api_group, info.api_version, info.resource)
        if resource is None:
            raise NotFound.of_path()
        if not info.subresource:
            return resource.api_version, resource.kind
        found = resource.subresources[info.subresource]
        if not found.version:
            return resource.api_version, found.kind
        return f"{found.group}/{found.version}" if found.group else found.version, found.kind

    async def serve(self, exchange: Exchange, call: Call, served: Served) -> Any:
        """Serve a subresource that the resource has and the verb may do."""
        name = call.info.subresource
        if name == "scale":
            return await self._scale(exchange, call, served)
        if name == "binding":
            return await self._bind(exchange, call, served)
        if name == "eviction":
            obj = await self._read(exchange, call, policy_pb2.Eviction, api_version="policy/v1", kind="Eviction")
            status = await eviction.evict(self._hall, served, call, obj, objects=self._objects)
            return self._message(exchange, status, "v1", "Status", code=201)
        if name in _KUBELET and served.info.plural == "pods":
            return await self._kubelets.serve(exchange, call, served)
        if name == "proxy":
            return await self._kubelets.proxy(exchange, call, served)
        raise NotFound.of_path()

    async def _bind(self, exchange: Exchange, call: Call, served: Served) -> Answer:
        obj = await self._read(exchange, call, binding_pb2.Binding, api_version="v1", kind="Binding")
        if not call.info.name and not obj.metadata.name:
            raise BadRequest("name is required")
        status = await binding.bind(self._hall, served, call, obj)
        return self._message(exchange, status, "v1", "Status", code=201)

    async def _scale(self, exchange: Exchange, call: Call, served: Served) -> Answer:
        verb = call.info.verb
        if verb == "get":
            return self._message(exchange, await scale.get_scale(served, call), *_SCALE)
        if verb == "update":
            wanted = await self._read(exchange, call, autoscaling_pb2.Scale, api_version=_SCALE[0], kind=_SCALE[1])

            async def replace(_current: Any) -> Any:
                return wanted

            return self._message(exchange, await scale.update_scale(self._hall, served, call, replace), *_SCALE)
        patch: Patch = await read_patch(exchange, call)
        document = read_document(patch)

        async def change(current: Any) -> Any:
            return patch_object(autoscaling_pb2.Scale, current, patch.kind, document, call)

        return self._message(exchange, await scale.update_scale(self._hall, served, call, change), *_SCALE)

    async def _read(self, exchange: Exchange, call: Call, cls: Any, *, api_version: str, kind: str) -> Any:
        media = body_media(exchange.headers.get("Content-Type", ""))
        return decode_object(cls, await exchange.body(), media, call, api_version=api_version, kind=kind)

    def _message(self, exchange: Exchange, obj: Any, api_version: str, kind: str, *, code: int = 200) -> Answer:
        media_format = choose_format(exchange.headers.get("Accept", ""), tables=False)
        return message_answer(obj, api_version, kind, media_format, code=code)


def _answerer_key(call: Call) -> tuple[str, str, str]:
    info = call.info
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    return info.api_group, info.api_version, resource
