"""Lets deleted claims go when no pod on a node uses them.

Source: kubernetes pkg/controller/volume/pvcprotection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tiphys.api.core.v1 import persistent_volume_claim_pb2, pod_pb2
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.meta import has_finalizer, is_being_deleted, join_key
from tiphys_client.controller import RequeueAfter
from tiphys_component.log import get_logger
from tiphys_controller_manager.frame import Context, Watch, own_key
from tiphys_controller_manager.pods import CLAIM_INDEX, PodView, claims_of

Claim = persistent_volume_claim_pb2.PersistentVolumeClaim
FINALIZER: Final = "kubernetes.io/pvc-protection"


class ClaimProtection:
    """Keys are namespace/name of claims."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._claims = context.informers.of(Claim)
        self._pods = context.informers.of(pod_pb2.Pod)
        self._log = get_logger("persistentvolumeclaim-protection-controller")

    def watches(self) -> Iterable[Watch]:
        """Claims, and pods that may have used one."""
        return (Watch(Claim, own_key), Watch(pod_pb2.Pod, self._pod_keys))

    def first_keys(self) -> Iterable[str]:
        """None: every claim is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Give a claim its finalizer, or take it off one that is deleted and free. Raises errors of the API."""
        claim = self._claims.get(key)
        if claim is None:
            return None
        is_held = has_finalizer(claim, FINALIZER)
        if is_being_deleted(claim):
            if is_held and not self._is_used(key) and not await self._is_used_on_server(claim):
                claim.metadata.finalizers.remove(FINALIZER)
                await self._update(claim)
                self._log.info("claim let go", claim=key)
        elif not is_held:
            claim.metadata.finalizers.append(FINALIZER)
            await self._update(claim)
        return None

    def _is_used(self, key: str) -> bool:
        pods: list[PodView] = [pod for _, pod in self._pods.store.projections_by_index(CLAIM_INDEX, key)]
        # A pod without a node starts nowhere: no kubelet starts a pod whose claim is being deleted.
        return any(pod.node for pod in pods)

    async def _is_used_on_server(self, claim: Claim) -> bool:
        """Our view may be older than the pod: the server is asked before data may go."""
        listed = await self._client.list(pod_pb2.Pod, claim.metadata.namespace)
        return any(pod.spec.nodeName and claim.metadata.name in claims_of(pod) for pod in listed.items)

    async def _update(self, claim: Claim) -> None:
        try:
            await self._client.update(claim)
        except NotFound:
            return

    def _pod_keys(self, old: Any, new: Any) -> Iterable[str]:
        """A pod that is gone may have been the last user; nothing else of a pod frees its claims."""
        if new is not None:
            return ()
        return [join_key(old.metadata.namespace, name) for name in claims_of(old)]
