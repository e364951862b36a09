"""The scale of what an autoscaler scales: any kind that has one, built in or defined at run time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from tiphys.api.apiextensions.v1.apiextensions_pb2 import CustomResourceDefinition
from tiphys.api.autoscaling.v1 import autoscaling_pb2
from tiphys.apiserver.v1 import wire_pb2
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.scheme import Scheme
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_controller_manager.custom_kinds import class_of


@dataclass(frozen=True, slots=True)
class Target:
    """One object with a scale, as it was read."""

    cls: type[Message]
    scale: Any

    @property
    def current(self) -> int:
        """How many replicas are wanted now."""
        return int(self.scale.spec.replicas)

    @property
    def seen(self) -> int:
        """How many replicas there are."""
        return int(self.scale.status.replicas)

    @property
    def selector(self) -> str:
        """Which pods they are; empty where the target does not say."""
        return str(self.scale.status.selector)


class ScaleTargets:
    """Reads and writes scales."""

    def __init__(self, client: Client, scheme: Scheme, definitions: Informer[CustomResourceDefinition, Any]) -> None:
        self._client = client
        self._scheme = scheme
        self._definitions = definitions

    async def get(self, reference: Any, namespace: str) -> Target:
        """The scale of what a spec names. Raises NotFound for a kind without one, and errors of the API."""
        cls = self._class(reference.apiVersion, reference.kind)
        if cls is None:
            raise NotFound(f'no matches for kind "{reference.kind}" in group "{_group(reference.apiVersion)}"')
        request = wire_pb2.GetRequest(namespace=namespace, name=reference.name)
        answer = await self._client.call(cls, "GetScale", request, wire_pb2.GetResponse)
        return Target(cls, autoscaling_pb2.Scale.FromString(answer.object))

    async def set(self, target: Target, replicas: int) -> None:
        """Have another number of replicas, if nobody else changed it meanwhile. Raises Conflict, errors of the API."""
        scale: Any = autoscaling_pb2.Scale()
        scale.CopyFrom(target.scale)
        scale.spec.replicas = replicas
        name, namespace = scale.metadata.name, scale.metadata.namespace
        request = wire_pb2.UpdateRequest(namespace=namespace, name=name, object=scale.SerializeToString())
        await self._client.call(target.cls, "UpdateScale", request, wire_pb2.UpdateResponse)

    def _class(self, api_version: str, kind: str) -> type[Message] | None:
        """The class of a kind that has a scale, in whichever version of its group."""
        group = _group(api_version)
        for info in self._scheme.resources():
            if (info.group, info.kind) == (group, kind) and "scale" in info.subresources:
                return info.message
        for definition in self._definitions.list():
            if (definition.spec.group, definition.spec.names.kind) == (group, kind):
                found: Any = class_of(definition)
                return found  # type: ignore[no-any-return]  # in the shape of a message
        return None


def _group(api_version: str) -> str:
    return api_version.rpartition("/")[0]
