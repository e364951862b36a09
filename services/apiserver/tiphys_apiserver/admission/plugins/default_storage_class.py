"""Gives claims without a storage class the cluster's default one."""

from __future__ import annotations

from typing import Any

from tiphys.api.storage.v1.storage_pb2 import StorageClass
from tiphys_apimachinery.persistent_volumes import CLASS_ANNOTATION, class_view, default_class
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.registry.objects import ObjectAccess


class DefaultStorageClass:
    """An empty storageClassName is a choice and stays; only an unset one is filled."""

    name = "DefaultStorageClass"

    def __init__(self, objects: ObjectAccess) -> None:
        self._objects = objects

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """New claims."""
        return (
            attributes.operation is Operation.CREATE
            and attributes.resource.plural == "persistentvolumeclaims"
            and not attributes.subresource
        )

    async def admit(self, attributes: AdmissionAttributes) -> None:
        """Fill the class if there is a default; of several the newest, then the first by name."""
        claim: Any = attributes.object
        if claim.spec.HasField("storageClassName"):
            return
        if CLASS_ANNOTATION in claim.metadata.annotations:
            return
        chosen = default_class(class_view(item) for item in await self._objects.list(StorageClass))
        if chosen is not None:
            claim.spec.storageClassName = chosen.name
