"""Namespaces and priority classes that every cluster has."""

from __future__ import annotations

from typing import Any

from tiphys.api.core.v1.namespace_pb2 import Namespace
from tiphys.api.scheduling.v1.scheduling_pb2 import PriorityClass
from tiphys_apimachinery.errors import AlreadyExists
from tiphys_apiserver.registry.objects import ObjectAccess

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")

# Source: Kubernetes pkg/apis/scheduling; values above one billion are the system's.
PRIORITY_CLASSES = (
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
)


async def ensure_namespaces(objects: ObjectAccess) -> None:
    """Create the four namespaces that are missing."""
    for name in NAMESPACES:
        if objects.get_nowait(Namespace, name) is not None:
            continue
        namespace = Namespace()
        namespace.metadata.name = name
        await _create_if_absent(objects, namespace)


async def ensure_priority_classes(objects: ObjectAccess) -> None:
    """Create the two classes of the system that are missing."""
    for name, value, description in PRIORITY_CLASSES:
        if objects.get_nowait(PriorityClass, name) is not None:
            continue
        item = PriorityClass(value=value, description=description, preemptionPolicy="PreemptLowerPriority")
        item.metadata.name = name
        await _create_if_absent(objects, item)


async def _create_if_absent(objects: ObjectAccess, obj: Any) -> None:
    try:
        await objects.create(obj)
    except AlreadyExists:
        # Another server of the cluster was quicker.
        return
