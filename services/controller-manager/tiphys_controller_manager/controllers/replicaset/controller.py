"""Keeps as many pods as each ReplicaSet asks for, and says in its status how it stands.

ReplicationControllers, which are older, differ in the form of the selector alone: one thing, two kinds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import pod_pb2, replication_controller_pb2
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.labels import SelectorError
from tiphys_apimachinery.meta import (
    find_condition,
    get_controller_of,
    is_being_deleted,
    namespaced_name,
    new_controller_ref,
)
from tiphys_client.controller import RequeueAfter, Terminal
from tiphys_controller_manager.controllers.replicaset.plan import (
    Failure,
    PodChange,
    next_available,
    plan_pods,
    same_status,
    slow_start,
    status_of,
)
from tiphys_controller_manager.frame import Context, Watch, own_key
from tiphys_controller_manager.ownership import Adopter, owner_keys, selecting_keys, selector_of, sort_out
from tiphys_controller_manager.pod_control import Outcome, PodControl, pod_from_template
from tiphys_controller_manager.pods import CONTROLLER_INDEX, PodView, orphans_in

# How long to wait for a view that lags; the events that end the wait come by themselves.
_LAG_S: Final = 1.0
# The same after a round that made or deleted pods: of one that came and went while the history was lost nobody tells.
_LOST_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind that asks for a number of pods: with spec.replicas, selector, template and a status that counts them."""

    cls: type[Any]
    api_version: str
    name: str


REPLICA_SET: Final = Kind(apps_pb2.ReplicaSet, "apps/v1", "ReplicaSet")
REPLICATION_CONTROLLER: Final = Kind(replication_controller_pb2.ReplicationController, "v1", "ReplicationController")


class ReplicaSetController:
    """Reconciles one ReplicaSet at a time, or one object of a kind like it; keys are namespace/name."""

    def __init__(self, context: Context, kind: Kind = REPLICA_SET) -> None:
        self._kind = kind
        self._client = context.client
        self._clock = context.clock
        self._replica_sets = context.informers.of(kind.cls)
        self._pods = context.informers.of(pod_pb2.Pod)
        self._expectations = context.expectations(pod_pb2.Pod)
        self._own_writes = context.expectations(kind.cls)
        self._control = PodControl(context.client, context.events, self._expectations)
        self._adopter = Adopter(context.client, pod_pb2.Pod)

    def watches(self) -> Iterable[Watch]:
        """ReplicaSets, and the pods they manage or might adopt."""
        return (Watch(self._kind.cls, self._own_keys), Watch(pod_pb2.Pod, self._pod_keys))

    def first_keys(self) -> Iterable[str]:
        """None: every ReplicaSet is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """One step of one ReplicaSet. Raises the first error of its pods, after the status was written."""
        replica_set = self._replica_sets.get(key)
        if replica_set is None:
            self._forget(key)
            return None
        if not (self._own_writes.are_met(key) and self._expectations.are_met(key)):
            return RequeueAfter(_LAG_S)
        try:
            selector = selector_of(replica_set)
        except SelectorError as err:
            raise Terminal(f"{self._kind.name} {key}: spec.selector: {err}") from err
        reference = new_controller_ref(replica_set, self._kind.api_version, self._kind.name)
        owned = sort_out(replica_set, selector, self._candidates(replica_set))
        pods = await self._adopter.settle(replica_set, reference, owned, lambda pod: self._expectations.wrote(key, pod))
        active = [pod for pod in pods if pod.is_active]
        now = self._clock.now().timestamp()
        outcome, change, failure = Outcome(), PodChange(), None
        if not is_being_deleted(replica_set):
            related = self._related(replica_set) if len(active) > replica_set.spec.replicas else ()
            change = plan_pods(replica_set.spec.replicas, active, related, now=now)
            if change.create:
                prefix = replica_set.metadata.name
                template, namespace = replica_set.spec.template, replica_set.metadata.namespace
                outcome = await self._control.create(
                    key,
                    replica_set,
                    lambda: pod_from_template(template, namespace, prefix, reference),
                    slow_start(change.create),
                )
            elif change.delete:
                outcome = await self._control.delete(key, replica_set, change.delete)
            if outcome.error is not None:
                reason = "FailedCreate" if change.create else "FailedDelete"
                failure = Failure(reason, str(outcome.error))
            elif change.delete:
                gone = frozenset(pod.uid for pod in change.delete)
                active = [pod for pod in active if pod.uid not in gone]
        await self._write_status(replica_set, active, made=outcome.done if change.create else 0, failure=failure)
        if outcome.error is not None:
            raise outcome.error
        if not self._expectations.are_met(key):
            return RequeueAfter(_LOST_S)
        wait_s = next_available(active, replica_set.spec.minReadySeconds, now=self._clock.now().timestamp())
        return RequeueAfter(wait_s) if wait_s is not None else None

    async def _write_status(
        self, replica_set: Any, active: list[PodView], *, made: int, failure: Failure | None
    ) -> None:
        status = status_of(replica_set, active, made=made, now=self._clock.now().timestamp(), failure=failure)
        if same_status(status, replica_set.status):
            return
        replica_set.status.CopyFrom(status)
        key = namespaced_name(replica_set)
        try:
            self._own_writes.wrote(key, await self._client.update_status(replica_set))
        except NotFound:
            # Deleted while we worked on it: nobody is left to be told.
            self._forget(key)

    def _forget(self, key: str) -> None:
        self._expectations.forget(key)
        self._own_writes.forget(key)

    def _candidates(self, replica_set: Any) -> list[PodView]:
        store = self._pods.store
        metadata = replica_set.metadata
        own = store.projections_by_index(CONTROLLER_INDEX, metadata.uid)
        orphans = store.projections_by_index(CONTROLLER_INDEX, orphans_in(metadata.namespace))
        return [pod for _, pod in own] + [pod for _, pod in orphans if pod.is_active]

    def _related(self, replica_set: Any) -> list[PodView]:
        """Pods of all ReplicaSets of the same deployment."""
        owner = get_controller_of(replica_set)
        uids = {replica_set.metadata.uid}
        if owner is not None:
            siblings = self._replica_sets.by_index(CONTROLLER_INDEX, owner.uid)
            uids.update(other.metadata.uid for other in siblings)
        store = self._pods.store
        return [pod for uid in sorted(uids) for _, pod in store.projections_by_index(CONTROLLER_INDEX, uid)]

    def _own_keys(self, old: Any, new: Any) -> Iterable[str]:
        if new is not None and self._own_writes.is_echo(namespaced_name(new), new):
            return ()
        return own_key(old, new)

    def _pod_keys(self, old: Any, new: Any) -> Iterable[str]:
        kind = self._kind
        if old is not None and new is not None and _facts(old) == _facts(new):
            # It was bound to a node, or told something that no count speaks of.
            return ()
        return {**owner_keys(kind.api_version, kind.name, old, new), **selecting_keys(self._replica_sets, old, new)}


def _facts(pod: pod_pb2.Pod) -> tuple[object, ...]:
    """All that makes a pod count otherwise."""
    metadata, status = pod.metadata, pod.status
    owner, ready = get_controller_of(pod), find_condition(status.conditions, "Ready")
    return (
        owner.uid if owner is not None else "",
        metadata.HasField("deletionTimestamp"),
        status.phase in ("Succeeded", "Failed"),
        ready.lastTransitionTime.seconds if ready is not None and ready.status == "True" else None,
        dict(metadata.labels),
    )


def replication_controllers(context: Context) -> ReplicaSetController:
    """The same for ReplicationControllers."""
    return ReplicaSetController(context, REPLICATION_CONTROLLER)
