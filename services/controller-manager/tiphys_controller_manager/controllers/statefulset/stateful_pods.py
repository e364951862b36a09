"""Makes and deletes the pods of StatefulSets with their claims, and tells of it by events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import persistent_volume_claim_pb2, pod_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.errors import AlreadyExists, APIError, NotFound
from tiphys_apimachinery.meta import is_being_deleted, join_key
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_controller_manager.controllers.statefulset.identity import (
    POD_INDEX_LABEL,
    POD_NAME_LABEL,
    claim_name,
    identity_labels,
    make_claims,
    make_pod,
    owners_of_claim,
    pod_name,
    set_owners,
)
from tiphys_controller_manager.controllers.statefulset.plan import number_of
from tiphys_controller_manager.expectations import Expectations
from tiphys_controller_manager.frame import EventSink
from tiphys_controller_manager.pods import PodView

Claim = persistent_volume_claim_pb2.PersistentVolumeClaim


class StatefulPods:
    """The pods of one set at a time; the set's key is that of its expectations."""

    def __init__(
        self,
        client: Client,
        events: EventSink,
        claims: Informer[Claim, Any],
        *,
        pod_writes: Expectations,
        claim_writes: Expectations,
    ) -> None:
        self._client = client
        self._events = events
        self._claims = claims
        self._pod_writes = pod_writes
        self._claim_writes = claim_writes

    async def create(
        self,
        key: str,
        stateful_set: apps_pb2.StatefulSet,
        number: int,
        *,
        template: pod_pb2.PodTemplateSpec,
        revision: str,
    ) -> bool:
        """Make the claims that are missing, then the pod; False where a claim of its name has still to go.

        Raises errors of the API, after an event.
        """
        pod = make_pod(stateful_set, template, number, revision)
        if not await self.ensure_claims(key, stateful_set, number):
            return False
        try:
            self._pod_writes.wrote(key, await self._client.create(pod))
        except AlreadyExists:
            raise
        except APIError as err:
            self._tell(stateful_set, "create", pod.metadata.name, err)
            raise
        self._tell(stateful_set, "create", pod.metadata.name, None)
        return True

    async def delete(self, key: str, stateful_set: apps_pb2.StatefulSet, pod: PodView) -> None:
        """Delete this very pod; one that is gone is fine. Raises errors of the API, after an event."""
        self._pod_writes.deleting(key, [pod])
        try:
            await self._client.delete(pod_pb2.Pod, pod.name, pod.namespace, preconditions_uid=pod.uid)
        except NotFound:
            return
        except APIError as err:
            self._pod_writes.not_changed(key, pod)
            self._tell(stateful_set, "delete", pod.name, err)
            raise
        self._tell(stateful_set, "delete", pod.name, None)

    async def ensure_claims(self, key: str, stateful_set: apps_pb2.StatefulSet, number: int) -> bool:
        """Make the claims that are missing; False where one of that name is going: the pod must not use it."""
        is_clean = True
        for claim in make_claims(stateful_set, number):
            known = self._claims.get(join_key(claim.metadata.namespace, claim.metadata.name))
            if known is not None:
                is_clean = is_clean and not is_being_deleted(known)
                continue
            claim.metadata.ownerReferences.extend(owners_of_claim(stateful_set, None, is_condemned=False))
            name = f"{claim.metadata.name} Pod {pod_name(stateful_set.metadata.name, number)}"
            try:
                self._claim_writes.wrote(key, await self._client.create(claim))
            except AlreadyExists:
                continue
            except APIError as err:
                text = f"create Claim {name} in StatefulSet {stateful_set.metadata.name} failed error: {err}"
                self._events.event(stateful_set, "Warning", "FailedCreate", text)
                raise
            text = f"create Claim {name} in StatefulSet {stateful_set.metadata.name} success"
            self._events.event(stateful_set, "Normal", "SuccessfulCreate", text)
        return is_clean

    async def settle_owners(
        self, key: str, stateful_set: apps_pb2.StatefulSet, pods: Iterable[PodView], condemned: Iterable[PodView]
    ) -> None:
        """Have the claims of these pods end with whom the retention policy names."""
        condemned_uids = {pod.uid for pod in condemned}
        for pod in pods:
            number = number_of(pod.name, stateful_set.metadata.name)
            if number is None:
                continue
            reference = meta_pb2.OwnerReference(apiVersion="v1", kind="Pod", name=pod.name, uid=pod.uid)
            wanted = owners_of_claim(stateful_set, reference, is_condemned=pod.uid in condemned_uids)
            for template in stateful_set.spec.volumeClaimTemplates:
                name = claim_name(template.metadata.name, stateful_set.metadata.name, number)
                claim = self._claims.get(join_key(pod.namespace, name))
                if claim is None or is_being_deleted(claim):
                    continue
                if set_owners(claim, stateful_set.metadata.uid, wanted, pod.name):
                    self._claim_writes.wrote(key, await self._client.update(claim))

    async def settle_identity(self, key: str, stateful_set: apps_pb2.StatefulSet, pods: Iterable[PodView]) -> None:
        """Give adopted pods the labels by which each can be chosen."""
        for pod in pods:
            number = number_of(pod.name, stateful_set.metadata.name)
            if number is None or pod.is_deleting:
                continue
            labels = identity_labels(pod.name, number)
            if all(pod.labels.get(label) == labels[label] for label in (POD_NAME_LABEL, POD_INDEX_LABEL)):
                continue
            patch = {"metadata": {"uid": pod.uid, "labels": labels}}
            try:
                self._pod_writes.wrote(key, await self._client.patch(pod_pb2.Pod, pod.name, pod.namespace, patch))
            except NotFound:
                continue

    def _tell(self, stateful_set: apps_pb2.StatefulSet, verb: str, pod: str, error: APIError | None) -> None:
        text = f"{verb} Pod {pod} in StatefulSet {stateful_set.metadata.name}"
        word = verb.title()
        if error is None:
            self._events.event(stateful_set, "Normal", f"Successful{word}", f"{text} successful")
        else:
            self._events.event(stateful_set, "Warning", f"Failed{word}", f"{text} failed error: {error}")
