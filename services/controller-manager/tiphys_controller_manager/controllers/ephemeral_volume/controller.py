"""Makes the claims that pods ask for in their own spec; each ends with its pod.

Source: kubernetes pkg/controller/volume/ephemeral.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tiphys.api.core.v1 import persistent_volume_claim_pb2, pod_pb2
from tiphys_apimachinery.errors import AlreadyExists, APIError
from tiphys_apimachinery.meta import is_being_deleted, is_controlled_by, join_key, namespaced_name, new_controller_ref
from tiphys_client.controller import RequeueAfter
from tiphys_controller_manager.frame import Context, Watch
from tiphys_controller_manager.pod_control import is_namespace_ending
from tiphys_controller_manager.pods import PodView, ephemeral_claims_of

Claim = persistent_volume_claim_pb2.PersistentVolumeClaim
_FAILED: Final = "EphemeralVolumeCreationFailed"


class EphemeralVolumes:
    """Keys are namespace/name of pods."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._events = context.events
        self._pods = context.informers.of(pod_pb2.Pod)
        self._claims = context.informers.of(Claim)
        self._metrics = context.metrics

    def watches(self) -> Iterable[Watch]:
        """Pods with such volumes, and claims that were made for one."""
        return (Watch(pod_pb2.Pod, self._pod_keys), Watch(Claim, self._claim_keys))

    def first_keys(self) -> Iterable[str]:
        """None: every pod is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Make the claims that a pod lacks. Raises errors of the API, after an event."""
        view: PodView | None = self._pods.projection(key)
        if view is None or not view.ephemeral_claims or not view.is_active:
            return None
        pod = self._pods.get(key)
        if pod is None:
            return None
        for volume in pod.spec.volumes:
            if volume.volumeSource.HasField("ephemeral"):
                await self._ensure(pod, volume)
        return None

    async def _ensure(self, pod: pod_pb2.Pod, volume: Any) -> None:
        name = f"{pod.metadata.name}-{volume.name}"
        known = self._claims.get(join_key(pod.metadata.namespace, name))
        if known is not None:
            self._check_owner(pod, volume.name, known)
            return
        template = volume.volumeSource.ephemeral.volumeClaimTemplate
        claim = Claim()
        claim.metadata.name, claim.metadata.namespace = name, pod.metadata.namespace
        claim.metadata.labels.update(template.metadata.labels)
        claim.metadata.annotations.update(template.metadata.annotations)
        claim.metadata.ownerReferences.append(new_controller_ref(pod, "v1", "Pod"))
        claim.spec.CopyFrom(template.spec)
        self._metrics.ephemeral_claims.inc()
        try:
            await self._client.create(claim)
        except AlreadyExists:
            # Not in our view yet: it is looked at when it comes.
            return
        except APIError as err:
            self._metrics.ephemeral_failures.inc()
            if not is_namespace_ending(err):
                self._events.event(pod, "Warning", _FAILED, f"ephemeral volume {volume.name}: {err}")
            raise

    def _check_owner(self, pod: pod_pb2.Pod, volume: str, claim: Claim) -> None:
        if is_controlled_by(claim, pod) or is_being_deleted(claim):
            return
        name = namespaced_name(claim)
        text = f"PVC {name} was not created for pod {namespaced_name(pod)} (pod is not owner)"
        self._events.event(pod, "Warning", _FAILED, f"ephemeral volume {volume}: {text}")

    def _pod_keys(self, old: Any, new: Any) -> Iterable[str]:
        return (namespaced_name(new),) if old is None and any(ephemeral_claims_of(new)) else ()

    def _claim_keys(self, old: Any, new: Any) -> Iterable[str]:
        """A claim that is gone may be missing to its pod."""
        if new is not None:
            return ()
        return [
            join_key(old.metadata.namespace, owner.name)
            for owner in old.metadata.ownerReferences
            if owner.kind == "Pod"
        ]
