"""Gives claims without a storage class the cluster's default one."""

from __future__ import annotations

from typing import Any

from tiphys.api.storage.v1.storage_pb2 import StorageClass
from tiphys_apimachinery.meta import to_datetime
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.registry.objects import ObjectAccess

_DEFAULT_ANNOTATIONS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


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
        if "volume.beta.kubernetes.io/storage-class" in claim.metadata.annotations:
            return
        chosen = newest_default(await self._objects.list(StorageClass))
        if chosen is not None:
            claim.spec.storageClassName = chosen.metadata.name


def newest_default(classes: list[Any]) -> Any:
    """The default class, None where none is marked."""
    marked = [
        item
        for item in classes
        if any(item.metadata.annotations.get(key, "") == "true" for key in _DEFAULT_ANNOTATIONS)
    ]

    def order(item: Any) -> tuple[float, str]:
        created = to_datetime(item.metadata.creationTimestamp)
        return (-created.timestamp() if created is not None else 0.0, item.metadata.name)

    return min(marked, key=order, default=None)
