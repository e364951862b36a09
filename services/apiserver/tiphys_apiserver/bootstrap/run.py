"""All of the bootstrap, in order."""

from __future__ import annotations

from tiphys_apiserver.bootstrap.cluster_objects import ensure_namespaces, ensure_priority_classes
from tiphys_apiserver.bootstrap.flow_control import ensure_flow_control
from tiphys_apiserver.bootstrap.kubernetes_service import KubernetesService
from tiphys_apiserver.bootstrap.rbac import ensure_policy
from tiphys_apiserver.registry.objects import ObjectAccess


async def bootstrap(objects: ObjectAccess, service: KubernetesService | None) -> None:
    """Make what a cluster must have. Awaited before the server says that it is ready; may run again at any start.

    service is None where no address is advertised.
    """
    # Namespaces first: what follows lives in them.
    await ensure_namespaces(objects)
    await ensure_policy(objects)
    await ensure_priority_classes(objects)
    await ensure_flow_control(objects)
    if service is not None:
        await service.reconcile()
