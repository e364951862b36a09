"""Nothing is made in a namespace that is missing or going, and three namespaces never go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tiphys.api.core.v1.namespace_pb2 import Namespace
from tiphys_apimachinery.errors import StatusCause, StatusDetails
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.admission.refusal import refuse
from tiphys_apiserver.registry.objects import ObjectAccess

IMMORTAL = frozenset({"default", "kube-system", "kube-public"})
# Reviews say nothing about what is in the namespace and must not be told whether it exists.
_EXEMPT = frozenset({("authorization.k8s.io", "localsubjectaccessreviews")})


class NamespaceLifecycle:
    """Runs with the mutating plug-ins though it changes nothing: a missing namespace is to be told before
    any fault of the object, and before other plug-ins look into the namespace.
    """

    name = "NamespaceLifecycle"

    def __init__(self, objects: ObjectAccess) -> None:
        self._objects = objects

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """Creates in namespaces."""
        return (
            attributes.operation is Operation.CREATE
            and attributes.resource.namespaced
            and (attributes.resource.group, attributes.resource.plural) not in _EXEMPT
        )

    async def admit(self, attributes: AdmissionAttributes) -> None:
        """Raises NotFound for a missing namespace, Forbidden for a terminating one."""
        namespace: Any = await self._objects.get(Namespace, attributes.namespace)
        if not namespace.metadata.HasField("deletionTimestamp") and namespace.status.phase != "Terminating":
            return
        why = f"unable to create new content in namespace {attributes.namespace} because it is being terminated"
        error = refuse(attributes, why)
        cause = StatusCause(
            "NamespaceTerminating", f"namespace {attributes.namespace} is being terminated", "metadata.namespace"
        )
        error.details = replace(error.details or StatusDetails(), causes=(cause,))
        raise error


class ImmortalNamespaces:
    """Keeps the namespaces that a cluster cannot be without. Goes by the name of the plug-in it is half of."""

    name = NamespaceLifecycle.name

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """Deletes of those namespaces."""
        return (
            attributes.operation is Operation.DELETE
            and attributes.resource.plural == "namespaces"
            and not attributes.resource.group
            and attributes.name in IMMORTAL
        )

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Raises Forbidden."""
        raise refuse(attributes, "this namespace may not be deleted")
