"""How the controllers find claims and volumes: indexes over their projections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tiphys_apimachinery.meta import join_key
from tiphys_apimachinery.persistent_volumes import BIND_COMPLETED, class_of

CLASS_INDEX: Final = "class"
CLAIM_INDEX: Final = "claim"
VOLUME_INDEX: Final = "volume"
# The index key of objects without a class: no class is named so.
NO_CLASS: Final = "/"


def class_key(storage_class: str) -> str:
    """The index key of a storage class."""
    return storage_class or NO_CLASS


def volume_class_keys(volume: Any) -> Iterable[str]:
    """Index function: the volume's class."""
    return (class_key(class_of(volume)),)


def volume_claim_keys(volume: Any) -> Iterable[str]:
    """Index function: the claim that the volume is bound to or reserved for."""
    if not volume.spec.HasField("claimRef"):
        return ()
    return (join_key(volume.spec.claimRef.namespace, volume.spec.claimRef.name),)


def unbound_class_keys(claim: Any) -> Iterable[str]:
    """Index function: the class of a claim that is not bound; nothing for one that is."""
    return () if BIND_COMPLETED in claim.metadata.annotations else (class_key(class_of(claim)),)


def attachment_node_keys(item: Any) -> Iterable[str]:
    """Index function: the node of an attachment."""
    return (item.spec.nodeName,)


def attachment_volume_keys(item: Any) -> Iterable[str]:
    """Index function: the volume of an attachment."""
    return (item.spec.source.persistentVolumeName,)
