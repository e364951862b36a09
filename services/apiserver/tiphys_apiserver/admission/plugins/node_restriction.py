"""Holds kubelets to their own node, its lease and its pods, in what a write says as well as in its path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.admission.plugins.service_account import MIRROR_ANNOTATION
from tiphys_apiserver.admission.refusal import refuse
from tiphys_apiserver.authorization.node import LEASE_NAMESPACE, node_of
from tiphys_apiserver.authorization.node_relations import references_of
from tiphys_apiserver.registry.objects import ObjectAccess

RESTRICTED_PREFIX = "node-restriction.kubernetes.io/"
# Labels under kubernetes.io and k8s.io that a kubelet may put on its own node.
# Source: kubelet pkg/apis/well_known_labels.go.
_ALLOWED_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "node.kubernetes.io/instance-type",
        "beta.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.kubernetes.io/region",
        "failure-domain.kubernetes.io/zone",
        "node.kubernetes.io/windows-build",
    }
)
_ALLOWED_NAMESPACES = ("kubelet.kubernetes.io", "node.kubernetes.io")


class NodeRestriction:
    """Refuses writes of a kubelet to what is not its own."""

    name = "NodeRestriction"

    def __init__(self, objects: ObjectAccess) -> None:
        self._objects = objects
        self._judges = {
            ("", "pods", ""): self._pod,
            ("", "pods", "status"): self._pod_status,
            ("", "pods", "eviction"): self._own_pod,
            ("", "nodes", ""): self._node,
            ("", "nodes", "status"): self._node,
            ("", "serviceaccounts", "token"): self._token,
            ("coordination.k8s.io", "leases", ""): self._lease,
            ("storage.k8s.io", "csinodes", ""): self._own_name,
            ("resource.k8s.io", "resourceslices", ""): self._resource_slice,
        }

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """Writes of kubelets to the kinds judged here."""
        return node_of(attributes.user) is not None and self._key(attributes) in self._judges

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Raises Forbidden."""
        node = node_of(attributes.user)
        if not node:
            raise refuse(attributes, f'could not determine node from user "{attributes.user.name}"')
        self._judges[self._key(attributes)](attributes, node)

    @staticmethod
    def _key(attributes: AdmissionAttributes) -> tuple[str, str, str]:
        return (attributes.resource.group, attributes.resource.plural, attributes.subresource)

    def _pod(self, attributes: AdmissionAttributes, node: str) -> None:
        if attributes.operation is Operation.CREATE:
            self._mirror_pod(attributes, node)
        elif attributes.operation is Operation.DELETE:
            old: Any = attributes.old_object
            if old is not None and old.spec.nodeName != node:
                raise refuse(attributes, f'node "{node}" can only delete pods with spec.nodeName set to itself')
        else:
            what = f'unexpected operation "{attributes.operation.value}"'
            raise refuse(attributes, f'{what}, node "{node}" can only create and delete mirror pods')

    def _mirror_pod(self, attributes: AdmissionAttributes, node: str) -> None:
        pod: Any = attributes.object
        if MIRROR_ANNOTATION not in pod.metadata.annotations:
            raise refuse(
                attributes,
                f'pod does not have "{MIRROR_ANNOTATION}" annotation, node "{node}" can only create mirror pods',
            )
        if pod.spec.nodeName != node:
            raise refuse(attributes, f'node "{node}" can only create pods with spec.nodeName set to itself')
        for owner in pod.metadata.ownerReferences:
            if (owner.apiVersion, owner.kind, owner.name) != ("v1", "Node", node):
                raise refuse(attributes, f'node "{node}" can only create pods with an owner reference set to itself')
            stored: Any = self._objects.get_nowait(Node, node)
            if stored is None or stored.metadata.uid != owner.uid:
                raise refuse(attributes, f"node {node} UID mismatch: expected that of the stored node, got {owner.uid}")
        unmarked = Pod()
        unmarked.CopyFrom(pod)
        del unmarked.metadata.annotations[MIRROR_ANNOTATION]
        named = next(references_of(unmarked), None)
        if named is not None:
            raise refuse(attributes, f'node "{node}" can not create pods that reference {named[0]}')

    def _pod_status(self, attributes: AdmissionAttributes, node: str) -> None:
        old: Any = attributes.old_object
        new: Any = attributes.object
        if old is None:
            return
        if old.spec.nodeName != node:
            raise refuse(
                attributes, f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'
            )
        if old.metadata.labels != new.metadata.labels:
            raise refuse(attributes, f'node "{node}" cannot update labels through pod status')

    def _own_pod(self, attributes: AdmissionAttributes, node: str) -> None:
        pod: Any = self._objects.get_nowait(Pod, attributes.name, attributes.namespace)
        if pod is not None and pod.spec.nodeName != node:
            raise refuse(attributes, f"node {node} can only evict pods with spec.nodeName set to itself")

    def _node(self, attributes: AdmissionAttributes, node: str) -> None:
        self._own_name(attributes, node, verb="modify")
        new: Any = attributes.object
        if new is None:
            return
        if attributes.operation is Operation.CREATE:
            changed: Iterable[str] = new.metadata.labels.keys()
            if new.spec.HasField("configSource"):
                raise refuse(attributes, f'node "{node}" is not allowed to create pods with a non-nil configSource')
        else:
            old: Any = attributes.old_object
            changed = changed_keys(old.metadata.labels, new.metadata.labels)
            if not attributes.subresource and list(old.spec.taints) != list(new.spec.taints):
                raise refuse(attributes, f'node "{node}" is not allowed to modify taints')
        forbidden = sorted(label for label in changed if not may_label(label))
        if forbidden:
            raise refuse(attributes, f'node "{node}" is not allowed to modify labels: {", ".join(forbidden)}')

    def _own_name(self, attributes: AdmissionAttributes, node: str, *, verb: str = "modify") -> None:
        new: Any = attributes.object
        name = attributes.name or (new.metadata.name if new is not None else "")
        if name != node:
            kind = attributes.resource.singular
            raise refuse(attributes, f'node "{node}" is not allowed to {verb} {kind} "{name}"')

    def _lease(self, attributes: AdmissionAttributes, node: str) -> None:
        if attributes.namespace != LEASE_NAMESPACE:
            raise refuse(attributes, f'can only access leases in the "{LEASE_NAMESPACE}" system namespace')
        new: Any = attributes.object
        name = attributes.name or (new.metadata.name if new is not None else "")
        if name != node:
            raise refuse(attributes, "can only access node lease with the same name as the requesting node")

    def _resource_slice(self, attributes: AdmissionAttributes, node: str) -> None:
        slice_: Any = attributes.object if attributes.object is not None else attributes.old_object
        if slice_ is not None and slice_.spec.nodeName != node:
            raise refuse(attributes, "can only access ResourceSlice with the same NodeName as the requesting node")

    def _token(self, attributes: AdmissionAttributes, node: str) -> None:
        request: Any = attributes.object
        if not request.spec.HasField("boundObjectRef"):
            raise refuse(attributes, "node requested token not bound to a pod")
        reference = request.spec.boundObjectRef
        if (reference.apiVersion, reference.kind) != ("v1", "Pod") or not reference.name:
            raise refuse(attributes, "node requested token not bound to a pod")
        if not reference.uID:
            raise refuse(attributes, "node requested token with a pod binding without a uid")
        pod: Any = self._objects.get_nowait(Pod, reference.name, attributes.namespace)
        if pod is None:
            raise refuse(attributes, f'node requested token bound to a pod that does not exist: "{reference.name}"')
        if pod.metadata.uid != reference.uID:
            raise refuse(
                attributes,
                f"the UID in the bound object reference ({reference.uID}) does not match the UID in record."
                " The object might have been deleted and then recreated",
            )
        if pod.spec.nodeName != node:
            raise refuse(attributes, "node requested token bound to a pod scheduled on a different node")


def changed_keys(old: Mapping[str, str], new: Mapping[str, str]) -> set[str]:
    """Labels that were added, removed or given another value."""
    return {key for key in {*old, *new} if old.get(key) != new.get(key)}


def may_label(label: str) -> bool:
    """Whether a kubelet may set this label on its own node."""
    prefix, slash, _ = label.partition("/")
    if not slash:
        return True
    if label.startswith(RESTRICTED_PREFIX) or prefix.endswith(f".{RESTRICTED_PREFIX.rstrip('/')}"):
        return False
    if label in _ALLOWED_LABELS:
        return True
    if any(prefix == allowed or prefix.endswith(f".{allowed}") for allowed in _ALLOWED_NAMESPACES):
        return True
    # kubelets may only use known labels of Kubernetes' own namespaces; node-role labels are not among them.
    return not any(prefix == domain or prefix.endswith(f".{domain}") for domain in ("kubernetes.io", "k8s.io"))
