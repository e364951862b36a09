"""Gives pods of a runtime class what the class costs, and sends them where its handler is.

Source: Kubernetes plugin/pkg/admission/runtimeclass.
"""

from __future__ import annotations

from typing import Any

from tiphys.api.node.v1.node_pb2 import RuntimeClass as Class
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.pod_resources import read_amounts, write_amounts
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.admission.refusal import refuse
from tiphys_apiserver.registry.objects import ObjectAccess


class RuntimeClass:
    """Fills overhead, nodeSelector and tolerations of new pods; refuses what contradicts the class."""

    name = "RuntimeClass"

    def __init__(self, objects: ObjectAccess) -> None:
        self._objects = objects

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """New pods."""
        resource = attributes.resource
        is_pod = resource.plural == "pods" and not resource.group
        return is_pod and attributes.operation is Operation.CREATE and not attributes.subresource

    async def admit(self, attributes: AdmissionAttributes) -> None:
        """Raises Forbidden for an unknown class, an overhead of the author's own, and a contrary nodeSelector."""
        pod: Any = attributes.object
        given = read_amounts(pod.spec.overhead)
        name = pod.spec.runtimeClassName
        if not name:
            if given:
                raise refuse(
                    attributes, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
                )
            return
        try:
            found: Any = await self._objects.get(Class, name)
        except NotFound as err:
            raise refuse(attributes, f'pod rejected: RuntimeClass "{name}" not found') from err
        cost = read_amounts(found.overhead.podFixed) if found.HasField("overhead") else {}
        if given and given != cost:
            raise refuse(attributes, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
        write_amounts(pod.spec.overhead, cost)
        if found.HasField("scheduling"):
            self._send(attributes, pod.spec, found.scheduling)

    @staticmethod
    def _send(attributes: AdmissionAttributes, spec: Any, scheduling: Any) -> None:
        for key, value in sorted(scheduling.nodeSelector.items()):
            own = spec.nodeSelector.get(key, value)
            if own != value:
                raise refuse(
                    attributes,
                    f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value};"
                    f" pod.spec.nodeSelector[{key}] = {own}",
                )
            spec.nodeSelector[key] = value
        for toleration in scheduling.tolerations:
            if toleration not in spec.tolerations:
                spec.tolerations.add().CopyFrom(toleration)
