"""Keeps claims and volumes from being deleted under those who use them."""

from __future__ import annotations

from typing import Any, Final

from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation

# The controllers pvc-protection and pv-protection take these off when nobody uses the object any more.
_FINALIZERS: Final = {
    "persistentvolumeclaims": "kubernetes.io/pvc-protection",
    "persistentvolumes": "kubernetes.io/pv-protection",
}


class StorageObjectInUseProtection:
    """Gives every new claim and volume its finalizer."""

    name = "StorageObjectInUseProtection"

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """New claims and volumes."""
        return (
            attributes.operation is Operation.CREATE
            and not attributes.resource.group
            and attributes.resource.plural in _FINALIZERS
            and not attributes.subresource
        )

    async def admit(self, attributes: AdmissionAttributes) -> None:
        """Add the finalizer, once."""
        obj: Any = attributes.object
        finalizer = _FINALIZERS[attributes.resource.plural]
        if finalizer not in obj.metadata.finalizers:
            obj.metadata.finalizers.append(finalizer)
