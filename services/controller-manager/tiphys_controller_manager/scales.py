"""How many replicas an owner wants, whatever its kind, by its subresource scale."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from tiphys.api.apiextensions.v1.apiextensions_pb2 import CustomResourceDefinition
from tiphys.api.autoscaling.v1 import autoscaling_pb2
from tiphys.apiserver.v1 import wire_pb2
from tiphys_apimachinery.errors import NotFound
from tiphys_controller_manager.custom_kinds import KIND_INDEX, class_of, kind_key
from tiphys_controller_manager.frame import Context


class NoScaleError(Exception):
    """A kind that is not known, or that nobody can scale."""


class Scales:
    """The scales of objects; kinds may be built in, or come and go with definitions."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._scheme = context.scheme
        self._definitions = context.informers.of(CustomResourceDefinition)
        # By name of the definition: its version, and the class made of it.
        self._classes: dict[str, tuple[str, type[Message] | None]] = {}

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> autoscaling_pb2.Scale | None:
        """The scale of an object, None if there is no such object.

        Raises NoScaleError for a kind that has none, and errors of the API.
        """
        cls = self._scalable(api_version, kind)
        request = wire_pb2.GetRequest(namespace=namespace, name=name)
        try:
            reply = await self._client.call(cls, "GetScale", request, wire_pb2.GetResponse)
        except NotFound:
            return None
        return autoscaling_pb2.Scale.FromString(reply.object)

    async def set(self, api_version: str, kind: str, scale: autoscaling_pb2.Scale, replicas: int) -> None:
        """Have another number of replicas than a scale that was read, if nobody changed the object meanwhile.

        Raises Conflict, NoScaleError, and errors of the API.
        """
        wanted: Any = autoscaling_pb2.Scale()
        wanted.CopyFrom(scale)
        wanted.spec.replicas = replicas
        name, namespace = wanted.metadata.name, wanted.metadata.namespace
        request = wire_pb2.UpdateRequest(namespace=namespace, name=name, object=wanted.SerializeToString())
        await self._client.call(self._scalable(api_version, kind), "UpdateScale", request, wire_pb2.UpdateResponse)

    def _scalable(self, api_version: str, kind: str) -> Any:
        found = self._scheme.by_kind(api_version, kind)
        if found is not None:
            if "scale" in found.subresources:
                return found.message
            raise NoScaleError(f"{kind} of {api_version} does not implement the scale subresource")
        group = api_version.rpartition("/")[0]
        for definition in self._definitions.by_index(KIND_INDEX, kind_key(group, kind)):
            cls: Any = self._class(definition)
            if cls is None:
                continue
            version = next(item for item in definition.spec.versions if item.name == cls.KIND.version)
            if version.subresources.HasField("scale"):
                return cls
            raise NoScaleError(f"{kind} of {api_version} does not implement the scale subresource")
        raise NoScaleError(f"no kind {kind} of {api_version} is served")

    def _class(self, definition: Any) -> type[Message] | None:
        """The class of a definition; the same one while it does not change."""
        name, version = definition.metadata.name, definition.metadata.resourceVersion
        known = self._classes.get(name)
        if known is None or known[0] != version:
            # In the shape of a message.
            made: Any = class_of(definition)
            known = self._classes[name] = (version, made)
        return known[1]
