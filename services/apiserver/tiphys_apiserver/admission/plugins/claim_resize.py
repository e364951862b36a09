"""Lets claims grow only where somebody can make their volumes larger."""

from __future__ import annotations

from typing import Any

from tiphys.api.storage.v1.storage_pb2 import StorageClass
from tiphys_apimachinery.persistent_volumes import class_of
from tiphys_apimachinery.quantity import Quantity
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.admission.refusal import refuse
from tiphys_apiserver.registry.objects import ObjectAccess


class PersistentVolumeClaimResize:
    """A claim that grows is bound, and its class allows it."""

    name = "PersistentVolumeClaimResize"

    def __init__(self, objects: ObjectAccess) -> None:
        self._objects = objects

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """Changes of claims."""
        return (
            attributes.operation is Operation.UPDATE
            and not attributes.resource.group
            and attributes.resource.plural == "persistentvolumeclaims"
            and not attributes.subresource
        )

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Raise Forbidden for a claim that grows and may not."""
        new: Any = attributes.object
        old: Any = attributes.old_object
        if _size(new) <= _size(old):
            return
        if old.status.phase != "Bound":
            raise refuse(attributes, "Only bound persistent volume claims can be expanded")
        name = class_of(new)
        item = self._objects.get_nowait(StorageClass, name) if name else None
        if item is None or not item.allowVolumeExpansion:
            raise refuse(
                attributes,
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must"
                " support resize",
            )


def _size(claim: Any) -> Quantity:
    requests = claim.spec.resources.requests
    return Quantity.parse(requests["storage"].string if "storage" in requests else "0")
