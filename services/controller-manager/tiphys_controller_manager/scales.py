"""How many replicas an owner wants, whatever its kind, by its subresource scale."""

from __future__ import annotations

from typing import Any

from tiphys.api.apiextensions.v1.apiextensions_pb2 import CustomResourceDefinition
from tiphys.api.autoscaling.v1 import autoscaling_pb2
from tiphys.apiserver.v1 import wire_pb2
from tiphys_apimachinery.errors import NotFound
from tiphys_controller_manager.custom_kinds import class_of
from tiphys_controller_manager.frame import Context


class NoScaleError(Exception):
    """A kind that is not known, or that nobody can scale."""


class Scales:
    """The scales of objects; kinds may be built in, or come and go with definitions."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._scheme = context.scheme
        self._definitions = context.informers.of(CustomResourceDefinition)

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

    def _scalable(self, api_version: str, kind: str) -> Any:
        found = self._scheme.by_kind(api_version, kind)
        if found is not None:
            if "scale" in found.subresources:
                return found.message
            raise NoScaleError(f"{kind} of {api_version} does not implement the scale subresource")
        group = api_version.rpartition("/")[0]
        for definition in self._definitions.store.list():
            if definition.spec.group != group or definition.status.acceptedNames.kind != kind:
                continue
            cls = class_of(definition)
            if cls is None:
                continue
            version = next(item for item in definition.spec.versions if item.name == cls.KIND.version)
            if version.subresources.HasField("scale"):
                return cls
            raise NoScaleError(f"{kind} of {api_version} does not implement the scale subresource")
        raise NoScaleError(f"no kind {kind} of {api_version} is served")
