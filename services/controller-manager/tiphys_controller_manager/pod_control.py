"""Makes pods from templates and deletes them, in batches, and tells of it by events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tiphys.api.core.v1 import pod_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.errors import APIError, NotFound
from tiphys_apimachinery.meta import is_being_deleted
from tiphys_client.client import Client
from tiphys_client.transport import is_retriable
from tiphys_controller_manager.expectations import Expectations
from tiphys_controller_manager.frame import EventSink
from tiphys_controller_manager.pods import PodView

# Names of pods end with five random characters, and a label has 63.
_MAX_PREFIX = 253 - 5
# Between questions to a server that does not answer.
_INSIST_S, _INSIST_MAX_S = 0.2, 5.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a round: how many calls succeeded, and the first error."""

    done: int = 0
    error: APIError | None = None


def pod_from_template(
    template: pod_pb2.PodTemplateSpec, namespace: str, prefix: str, owner: meta_pb2.OwnerReference
) -> pod_pb2.Pod:
    """A pod as the template says, named after prefix and managed by the owner."""
    pod = pod_pb2.Pod()
    pod.metadata.namespace = namespace
    pod.metadata.generateName = f"{prefix}-"[:_MAX_PREFIX]
    pod.metadata.labels.update(template.metadata.labels)
    pod.metadata.annotations.update(template.metadata.annotations)
    pod.metadata.finalizers.extend(template.metadata.finalizers)
    pod.metadata.ownerReferences.append(owner)
    pod.spec.CopyFrom(template.spec)
    return pod


def is_namespace_ending(error: APIError) -> bool:
    """Whether the API refused because the namespace is being deleted: then nothing has failed."""
    return error.details is not None and any(cause.reason == "NamespaceTerminating" for cause in error.details.causes)


class PodControl:
    """Creates and deletes the pods of one owner at a time; the owner's key is that of its expectations."""

    def __init__(self, client: Client, events: EventSink, expectations: Expectations) -> None:
        self._client = client
        self._events = events
        self._expectations = expectations

    async def create(self, key: str, owner: Any, make: Callable[[], pod_pb2.Pod], batches: Sequence[int]) -> Outcome:
        """Make pods batch by batch; the first batch with an error is the last."""
        done = 0
        for size in batches:
            results = await self._create_batch(key, [make() for _ in range(size)])
            error: APIError | None = None
            for result in results:
                if isinstance(result, APIError):
                    error = error or result
                    continue
                done += 1
                self._expectations.wrote(key, result)
                name = result.metadata.name
                self._events.event(owner, "Normal", "SuccessfulCreate", f"Created pod: {name}")
            if error is not None:
                if is_namespace_ending(error):
                    return Outcome(done)
                self._events.event(owner, "Warning", "FailedCreate", f"Error creating: {error}")
                return Outcome(done, error)
        return Outcome(done)

    async def _create_batch(self, key: str, pods: list[pod_pb2.Pod]) -> list[pod_pb2.Pod | APIError]:
        try:
            return await self._client.batch_create(pods)
        except APIError as err:
            if is_retriable(err):
                await self._look_again(key, pods[0])
            return [err]

    async def _look_again(self, key: str, made: pod_pb2.Pod) -> None:
        """The call may have been carried out all the same: expect to see what the server has of this owner now."""
        self._expectations.doubt(key)
        uid = made.metadata.ownerReferences[0].uid
        page = await self._insist(lambda: self._client.list(pod_pb2.Pod, made.metadata.namespace))
        owned = [pod for pod in page.items if any(owner.uid == uid for owner in pod.metadata.ownerReferences)]
        self._expectations.know(key, owned)

    async def delete(self, key: str, owner: Any, pods: Sequence[PodView]) -> Outcome:
        """Delete these very pods. One that is gone already counts as deleted."""
        self._expectations.deleting(key, pods)
        done, error = 0, None
        for pod in pods:
            try:
                await self._client.delete(pod_pb2.Pod, pod.name, pod.namespace, preconditions_uid=pod.uid)
            except NotFound:
                done += 1
                continue
            except APIError as err:
                if is_retriable(err) and await self._is_going(pod):
                    done += 1
                    continue
                self._expectations.not_changed(key, pod)
                self._events.event(owner, "Warning", "FailedDelete", f"Error deleting: {err}")
                error = error or err
                continue
            done += 1
            self._events.event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.name}")
        return Outcome(done, error)

    async def _is_going(self, pod: PodView) -> bool:
        """Whether a delete whose answer was lost has been carried out."""
        try:
            found = await self._insist(lambda: self._client.get(pod_pb2.Pod, pod.name, pod.namespace))
        except NotFound:
            return True
        return found.metadata.uid != pod.uid or is_being_deleted(found)

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer to a question, asked until there is one: what was done must be known before more is done."""
        pause_s = _INSIST_S
        while True:
            try:
                return await ask()
            except APIError as err:
                if not is_retriable(err):
                    raise
            await self._expectations.clock.sleep(pause_s)
            pause_s = min(2 * pause_s, _INSIST_MAX_S)
