"""The Node authorizer: a kubelet reads what its own pods need and writes what is its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.storage.v1.storage_pb2 import VolumeAttachment
from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.authorization.interface import Attributes, Decision, Rules, Verdict
from tiphys_apiserver.authorization.node_relations import Reference, attachment_name, references_of, secrets_of_volume
from tiphys_apiserver.authorization.rules import PolicyRule, rules_allow
from tiphys_apiserver.registry.objects import ObjectAccess

NODE_USER_PREFIX = "system:node:"
NODES_GROUP = "system:nodes"
LEASE_NAMESPACE = "kube-node-lease"

_ALLOW = Decision(Verdict.ALLOW)
_READS = ("get", "list", "watch")


def node_of(user: UserInfo) -> str | None:
    """The node's name if the user is a kubelet, "" if it is a node without a name, None if it is none."""
    if NODES_GROUP not in user.groups or not user.name.startswith(NODE_USER_PREFIX):
        return None
    return user.name.removeprefix(NODE_USER_PREFIX)


class NodeAuthorizer:
    """Judges requests of kubelets; has no opinion on others.

    Relations are read from the watch caches: pods by their node, claims and volumes by name. The references of a
    node's pods are remembered until any pod changes.
    """

    def __init__(self, objects: ObjectAccess, rules: Sequence[PolicyRule]) -> None:
        self._objects = objects
        self._rules = tuple(rules)
        # References by node, all made at the version of the pods' cache beside them.
        self._references: dict[str, frozenset[Reference]] = {}
        self._pods_version = -1
        # References of each pod by node, so that a change costs parsing of the pods that changed only.
        self._by_pod: dict[str, dict[str, tuple[int, frozenset[Reference]]]] = {}
        self._judges: dict[tuple[str, str], Callable[[str, Attributes], Awaitable[str]]] = {
            ("", "secrets"): self._read_related,
            ("", "configmaps"): self._read_related,
            ("", "persistentvolumeclaims"): self._claim,
            ("", "persistentvolumes"): self._follow_related,
            ("", "serviceaccounts"): self._token,
            ("", "nodes"): self._node,
            ("", "pods"): self._pod,
            ("resource.k8s.io", "resourceclaims"): self._get_related,
            ("resource.k8s.io", "resourceslices"): self._resource_slice,
            ("storage.k8s.io", "volumeattachments"): self._follow_related,
            ("storage.k8s.io", "csinodes"): self._csi_node,
            ("coordination.k8s.io", "leases"): self._lease,
        }

    async def authorize(self, attributes: Attributes) -> Decision:
        """Allow, or say in words why this node may not."""
        node = node_of(attributes.user)
        if node is None:
            return Decision(Verdict.NO_OPINION)
        if not node:
            return Decision(Verdict.NO_OPINION, f'unknown node for user "{attributes.user.name}"')
        judge = None
        if attributes.is_resource_request:
            judge = self._judges.get((attributes.api_group, attributes.resource))
        if judge is None:
            return _ALLOW if rules_allow(self._rules, attributes) else Decision(Verdict.NO_OPINION)
        refusal = await judge(node, attributes)
        return Decision(Verdict.NO_OPINION, refusal) if refusal else _ALLOW

    async def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        """Nothing that could be listed: a node's rights hang on its pods."""
        if node_of(user) is None:
            return Rules()
        return Rules(incomplete=True, evaluation_error="node authorizer does not support user rule resolution")

    # Each judge answers "" to allow, else the reason of the refusal.

    async def _read_related(self, node: str, attributes: Attributes) -> str:
        if attributes.verb not in _READS:
            return "can only read resources of this type"
        if attributes.subresource:
            return "cannot read subresource"
        if not attributes.namespace:
            return "can only read namespaced object of this type"
        return await self._related(node, attributes)

    async def _get_related(self, node: str, attributes: Attributes) -> str:
        if attributes.verb != "get":
            return "can only get individual resources of this type"
        if attributes.subresource:
            return "cannot get subresource"
        return await self._related(node, attributes)

    async def _follow_related(self, node: str, attributes: Attributes) -> str:
        """One object by its name, watches of it included: our kubelet goes on the moment it changes."""
        if attributes.verb not in _READS:
            return "can only read individual resources of this type"
        if attributes.subresource:
            return "cannot read subresource"
        return await self._related(node, attributes)

    async def _claim(self, node: str, attributes: Attributes) -> str:
        if attributes.subresource != "status":
            return await self._follow_related(node, attributes)
        if attributes.verb not in ("get", "update", "patch"):
            return "can only get/update/patch this type"
        return await self._related(node, attributes)

    async def _token(self, node: str, attributes: Attributes) -> str:
        if attributes.verb != "create" or not attributes.name:
            return "can only create tokens for individual service accounts"
        if attributes.subresource != "token":
            return "can only create token subresource of serviceaccount"
        return await self._related(node, attributes)

    async def _lease(self, node: str, attributes: Attributes) -> str:
        if attributes.verb not in ("get", "create", "update", "patch", "delete"):
            return "can only get, create, update, patch, or delete a node lease"
        if attributes.namespace != LEASE_NAMESPACE:
            return f'can only access leases in the "{LEASE_NAMESPACE}" system namespace'
        # On create the name is in the body: NodeRestriction checks it.
        if attributes.verb != "create" and attributes.name != node:
            return "can only access node lease with the same name as the requesting node"
        return ""

    async def _csi_node(self, node: str, attributes: Attributes) -> str:
        if attributes.verb not in ("get", "create", "update", "patch", "delete"):
            return "can only get, create, update, patch, or delete a CSINode"
        if attributes.subresource:
            return "cannot authorize CSINode subresources"
        if attributes.verb != "create" and attributes.name != node:
            return "can only access CSINode with the same name as the requesting node"
        return ""

    async def _resource_slice(self, node: str, attributes: Attributes) -> str:
        if attributes.subresource:
            return "cannot authorize ResourceSlice subresources"
        broad = attributes.verb in ("list", "watch", "deletecollection")
        if broad and not selects(attributes.field_selector, "spec.nodeName", node):
            return "can only list/watch/deletecollection resourceslices with spec.nodeName field selector"
        return ""

    async def _node(self, node: str, attributes: Attributes) -> str:
        verb = attributes.verb
        if attributes.subresource == "status":
            return "" if verb in ("update", "patch") else "can only update or patch the status of a node"
        if attributes.subresource:
            return "cannot access this subresource of nodes"
        # Whose node is written is checked by NodeRestriction, which sees the body.
        if verb in ("create", "update", "patch"):
            return ""
        if verb not in _READS:
            return "can only create, get, list, watch, update, or patch a node"
        # list and watch carry a name where the selector is metadata.name=NAME.
        if attributes.name != node and not selects(attributes.field_selector, "metadata.name", node):
            return f"node '{node}' cannot read '{attributes.name}', only its own Node object"
        return ""

    async def _pod(self, node: str, attributes: Attributes) -> str:
        if attributes.subresource in ("status", "eviction"):
            allowed = ("create",) if attributes.subresource == "eviction" else ("update", "patch")
            return "" if attributes.verb in allowed else f"cannot {attributes.verb} pods/{attributes.subresource}"
        if attributes.subresource:
            return "cannot access this subresource of pods"
        if attributes.verb in ("create", "delete"):
            return ""
        if attributes.verb in ("list", "watch"):
            if selects(attributes.field_selector, "spec.nodeName", node):
                return ""
            return "can only list/watch pods with spec.nodeName field selector"
        if attributes.verb != "get":
            return "can only create, get, list, watch, or delete pods"
        pod = self._objects.get_nowait(Pod, attributes.name, attributes.namespace)
        return "" if pod is not None and pod.spec.nodeName == node else _no_relation(node)

    async def _related(self, node: str, attributes: Attributes) -> str:
        if not attributes.name:
            return "No Object name found"
        kind, namespace, name = attributes.resource, attributes.namespace, attributes.name
        references = await self._references_of(node)
        if (kind, namespace, name) in references:
            return ""
        if kind == "volumeattachments":
            attachment = self._objects.get_nowait(VolumeAttachment, name)
            # One that is still to come may be waited for: its name says whose it will be.
            absent = attachment is None and self._is_expected(name, node, references)
            related = absent or (attachment is not None and attachment.spec.nodeName == node)
        elif kind == "persistentvolumes":
            related = self._volume_of(name, references) is not None
        elif kind == "secrets":
            related = self._in_a_volume((kind, namespace, name), references)
        else:
            related = False
        return "" if related else _no_relation(node)

    async def _references_of(self, node: str) -> frozenset[Reference]:
        version = self._objects.version(Pod)
        if version != self._pods_version:
            self._references = {}
            self._pods_version = version
        found = self._references.get(node)
        if found is None:
            memory = self._by_pod.setdefault(node, {})
            by_pod = await self._objects.project(
                Pod, lambda pod: frozenset(references_of(pod)), memory, field_selector=f"spec.nodeName={node}"
            )
            if not memory:
                self._by_pod.pop(node, None)
            found = frozenset().union(*by_pod)
            if version == self._pods_version:
                self._references[node] = found
        return found

    def _volume_of(self, name: str, references: frozenset[Reference]) -> PersistentVolume | None:
        volume = self._objects.get_nowait(PersistentVolume, name)
        if volume is None:
            return None
        claim = volume.spec.claimRef
        return volume if ("persistentvolumeclaims", claim.namespace, claim.name) in references else None

    def _is_expected(self, attachment: str, node: str, references: frozenset[Reference]) -> bool:
        """The name is that of an attachment to this node, of a volume that its pods claim."""
        for kind, namespace, name in references:
            if kind != "persistentvolumeclaims":
                continue
            claim = self._objects.get_nowait(PersistentVolumeClaim, name, namespace)
            volume = self._volume_of(claim.spec.volumeName, references) if claim is not None else None
            if volume is not None and attachment == attachment_name(volume, node):
                return True
        return False

    def _in_a_volume(self, secret: Reference, references: frozenset[Reference]) -> bool:
        for kind, namespace, name in references:
            if kind != "persistentvolumeclaims":
                continue
            claim = self._objects.get_nowait(PersistentVolumeClaim, name, namespace)
            if claim is None or not claim.spec.volumeName:
                continue
            volume = self._volume_of(claim.spec.volumeName, references)
            if volume is not None and secret in secrets_of_volume(volume):
                return True
        return False


def selects(field_selector: str, field: str, value: str) -> bool:
    """Whether a field selector asks for this very value, whatever else it asks for."""
    wanted = (f"{field}={value}", f"{field}=={value}")
    return any(term in wanted for term in field_selector.split(","))


def _no_relation(node: str) -> str:
    return f"no relationship found between node '{node}' and this object"
