"""Gives ingresses without a class the cluster's default one."""

from __future__ import annotations

from typing import Any

from tiphys.api.networking.v1.networking_pb2 import IngressClass
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.registry.objects import ObjectAccess

DEFAULT = "ingressclass.kubernetes.io/is-default-class"
# How a class was named before there was a field for it.
LEGACY = "kubernetes.io/ingress.class"


class DefaultIngressClass:
    """Fills the class of new ingresses; of several defaults the newest counts, then the first by name."""

    name = "DefaultIngressClass"

    def __init__(self, objects: ObjectAccess) -> None:
        self._objects = objects

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """New ingresses."""
        resource = attributes.resource
        is_ingress = resource.plural == "ingresses" and resource.group == "networking.k8s.io"
        return is_ingress and attributes.operation is Operation.CREATE and not attributes.subresource

    async def admit(self, attributes: AdmissionAttributes) -> None:
        """Fill the class if there is a default."""
        ingress: Any = attributes.object
        if ingress.spec.HasField("ingressClassName") or LEGACY in ingress.metadata.annotations:
            return
        classes: list[Any] = await self._objects.list(IngressClass)
        marked = [item for item in classes if item.metadata.annotations.get(DEFAULT) == "true"]
        if marked:
            newest = min(marked, key=lambda item: (-item.metadata.creationTimestamp.seconds, item.metadata.name))
            ingress.spec.ingressClassName = newest.metadata.name
