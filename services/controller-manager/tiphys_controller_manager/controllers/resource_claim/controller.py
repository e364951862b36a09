"""Makes the claims that pods ask for by a template, and frees devices of claims that nobody uses any more.

Our view of claims may lag behind what we made: what was made is remembered until it is seen, so that no pod gets two.
Source: kubernetes pkg/controller/resourceclaim.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tiphys.api.core.v1 import pod_pb2
from tiphys.api.resource.v1.resource_pb2 import ResourceClaim, ResourceClaimTemplate
from tiphys_apimachinery.errors import APIError, Conflict, NotFound
from tiphys_apimachinery.meta import get_controller_of, join_key, namespaced_name, new_controller_ref, split_key
from tiphys_apimachinery.resource_claims import ALLOCATED_FINALIZER, POD_CLAIM_NAME, pod_claims
from tiphys_client.controller import RequeueAfter
from tiphys_controller_manager.controllers.resource_claim.plan import ClaimPlan, User, apply, plan_claim, plan_pod
from tiphys_controller_manager.frame import Context, Watch
from tiphys_controller_manager.pod_control import is_namespace_ending
from tiphys_controller_manager.pods import CONTROLLER_INDEX, DEVICE_CLAIM_INDEX, NAMESPACE_INDEX, PodView

_FAILED: Final = "FailedResourceClaimCreation"
_POD: Final = "pod:"
_CLAIM: Final = "claim:"


class ResourceClaims:
    """Keys are pod:namespace/name and claim:namespace/name."""

    def __init__(self, context: Context) -> None:
        self._client, self._events = context.client, context.events
        self._pods = context.informers.of(pod_pb2.Pod)
        self._claims = context.informers.of(ResourceClaim)
        self._templates = context.informers.of(ResourceClaimTemplate)
        # By uid of the pod and name in it: claims that we made and have not seen yet.
        self._made: dict[str, dict[str, str]] = {}

    def watches(self) -> Iterable[Watch]:
        """Pods with claims, claims, and templates that pods may wait for."""
        return (
            Watch(pod_pb2.Pod, self._pod_keys),
            Watch(ResourceClaim, self._claim_keys),
            Watch(ResourceClaimTemplate, self._template_keys),
        )

    def first_keys(self) -> Iterable[str]:
        """None: everything is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Bring the claims of a pod, or one claim, to where they belong. Raises errors of the API."""
        if key.startswith(_POD):
            await self._reconcile_pod(key.removeprefix(_POD))
        else:
            await self._reconcile_claim(key.removeprefix(_CLAIM))
        return None

    async def _reconcile_pod(self, key: str) -> None:
        view: PodView | None = self._pods.projection(key)
        if view is None or not view.is_active:
            if view is not None:
                self._made.pop(view.uid, None)
            return
        pod = self._pods.get(key)
        if pod is None:
            return
        own = list(self._claims.store.by_index(CONTROLLER_INDEX, view.uid))
        seen = {claim.metadata.name for claim in own}
        made = {name: claim for name, claim in self._made.get(view.uid, {}).items() if claim not in seen}
        plan = plan_pod(view.resource_claims, own, made)
        names = dict(plan.names)
        for name in plan.make:
            names[name] = made[name] = await self._make(pod, name)
            self._made[view.uid] = made
        told = {item.name: item.claim for item in view.resource_claims if item.is_generated}
        if names != told:
            await self._write_names(pod, names)

    async def _make(self, pod: pod_pb2.Pod, name: str) -> str:
        """Makes the claim of a template, and returns its name."""
        wanted = next(item for item in pod.spec.resourceClaims if item.name == name)
        namespace = pod.metadata.namespace
        template = self._templates.get(join_key(namespace, wanted.resourceClaimTemplateName))
        if template is None:
            text = f'resourceclaimtemplate "{wanted.resourceClaimTemplateName}" not found'
            self._events.event(pod, "Warning", _FAILED, f"PodResourceClaim {name}: {text}")
            raise NotFound(text)
        claim = ResourceClaim()
        claim.metadata.namespace = namespace
        claim.metadata.generateName = f"{pod.metadata.name}-{name}-"
        claim.metadata.labels.update(template.spec.metadata.labels)
        claim.metadata.annotations.update(template.spec.metadata.annotations)
        claim.metadata.annotations[POD_CLAIM_NAME] = name
        claim.metadata.ownerReferences.append(new_controller_ref(pod, "v1", "Pod"))
        claim.spec.CopyFrom(template.spec.spec)
        try:
            stored = await self._client.create(claim)
        except APIError as err:
            if not is_namespace_ending(err):
                self._events.event(pod, "Warning", _FAILED, f"PodResourceClaim {name}: failed to create: {err}")
            raise
        return stored.metadata.name

    async def _write_names(self, pod: pod_pb2.Pod, names: dict[str, str]) -> None:
        statuses = [{"name": name, "resourceClaimName": claim} for name, claim in sorted(names.items())]
        patch = {"metadata": {"uid": pod.metadata.uid}, "status": {"resourceClaimStatuses": statuses}}
        try:
            await self._client.patch(
                pod_pb2.Pod, pod.metadata.name, pod.metadata.namespace, patch, type="strategic", subresource="status"
            )
        except (NotFound, Conflict):
            # Gone, or another pod of its name by now.
            return

    async def _reconcile_claim(self, key: str) -> None:
        claim = self._claims.get(key)
        if claim is None:
            return
        owner = get_controller_of(claim)
        if owner is not None and owner.uid in self._made:
            self._made[owner.uid].pop(claim.metadata.annotations.get(POD_CLAIM_NAME, ""), None)
            if not self._made[owner.uid]:
                del self._made[owner.uid]
        pods = [_user(view) for _, view in self._pods.store.projections_by_index(DEVICE_CLAIM_INDEX, key)]
        users = {pod.uid: pod for pod in pods}
        for user in claim.status.reservedFor:
            if user.resource == "pods" and user.uid not in users:
                found = await self._find(claim.metadata.namespace, user.name, user.uid)
                if found is not None:
                    users[user.uid] = found
        try:
            await self._carry_out(claim, plan_claim(claim, users, pods))
        except NotFound:
            return

    async def _find(self, namespace: str, name: str, uid: str) -> User | None:
        """A pod that our view may not have yet: the server is asked before its devices go to another."""
        try:
            pod = await self._client.get(pod_pb2.Pod, name, namespace)
        except NotFound:
            return None
        if pod.metadata.uid != uid:
            return None
        is_over = pod.status.phase in ("Succeeded", "Failed")
        return User(name, uid, bool(pod.spec.nodeName), is_over)

    async def _carry_out(self, claim: ResourceClaim, plan: ClaimPlan) -> None:
        if apply(claim, plan):
            claim = await self._client.update_status(claim)
        if plan.is_let_go:
            claim.metadata.finalizers.remove(ALLOCATED_FINALIZER)
            claim = await self._client.update(claim)
        if plan.is_deleted:
            await self._client.delete(
                ResourceClaim, claim.metadata.name, claim.metadata.namespace, preconditions_uid=claim.metadata.uid
            )

    def _pod_keys(self, old: Any, new: Any) -> Iterable[str]:
        pod = new if new is not None else old
        if not pod.spec.resourceClaims:
            return ()
        namespace = pod.metadata.namespace
        claims = {item.claim for version in (old, new) if version is not None for item in pod_claims(version)}
        return (
            f"{_POD}{namespaced_name(pod)}",
            *(f"{_CLAIM}{join_key(namespace, name)}" for name in sorted(claims) if name),
        )

    def _claim_keys(self, old: Any, new: Any) -> Iterable[str]:
        claim = new if new is not None else old
        owner = get_controller_of(claim)
        if owner is not None and owner.kind == "Pod" and (old is None or new is None):
            yield f"{_POD}{join_key(claim.metadata.namespace, owner.name)}"
        if new is not None:
            yield f"{_CLAIM}{namespaced_name(claim)}"

    def _template_keys(self, old: Any, new: Any) -> Iterable[str]:
        """Pods may have been waiting for it."""
        if old is not None or new is None:
            return ()
        found = self._pods.store.projections_by_index(NAMESPACE_INDEX, new.metadata.namespace)
        return [f"{_POD}{key}" for key, view in found if any(not item.claim for item in view.resource_claims)]


def _user(view: PodView) -> User:
    _, name = split_key(view.key)
    is_over = view.is_finished or (view.is_deleting and not view.node)
    return User(name, view.uid, bool(view.node), is_over)
