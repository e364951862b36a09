"""Keeps the numbered pods of each StatefulSet, rolls new templates out, and says in its status how it stands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import persistent_volume_claim_pb2, pod_pb2
from tiphys_apimachinery.errors import APIError, NotFound
from tiphys_apimachinery.labels import Selector, SelectorError, from_label_selector
from tiphys_apimachinery.meta import (
    get_controller_of,
    is_being_deleted,
    namespaced_name,
    new_controller_ref,
)
from tiphys_client.controller import RequeueAfter, Terminal
from tiphys_controller_manager.controllers.statefulset.plan import (
    REVISION_LABEL,
    Goal,
    Plan,
    goal_of,
    next_available,
    number_of,
    plan,
    status_of,
)
from tiphys_controller_manager.controllers.statefulset.stateful_pods import StatefulPods
from tiphys_controller_manager.frame import Context, Watch, own_key
from tiphys_controller_manager.history import History
from tiphys_controller_manager.ownership import Adopter, owner_keys, sort_out
from tiphys_controller_manager.pod_control import is_namespace_ending
from tiphys_controller_manager.pods import CONTROLLER_INDEX, NAMESPACE_INDEX, PodView, orphans_in
from tiphys_controller_manager.revisions import API_VERSION, STATEFUL_SETS, Revision, template_of

StatefulSet = apps_pb2.StatefulSet
KIND: Final = STATEFUL_SETS.kind
Claim = persistent_volume_claim_pb2.PersistentVolumeClaim
# What is wanted, the steps towards it, and the current and the new revision.
_Planned = tuple[Goal, Plan, tuple[Revision, Revision]]
# How long to wait for a view that lags, or a claim that is going; the events that end the wait come by themselves.
_LAG_S: Final = 1.0


class StatefulSetController:
    """Reconciles one StatefulSet at a time; keys are namespace/name."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._clock = context.clock
        self._events = context.events
        self._sets = context.informers.of(StatefulSet)
        self._pods = context.informers.of(pod_pb2.Pod)
        self._pod_writes = context.expectations(pod_pb2.Pod)
        self._own_writes = context.expectations(StatefulSet)
        self._revision_writes = context.expectations(Revision)
        self._claim_writes = context.expectations(Claim)
        self._adopter = Adopter(context.client, pod_pb2.Pod)
        self._history = History(
            context.client, context.informers.of(Revision), self._revision_writes, owners=STATEFUL_SETS
        )
        claims = context.informers.of(Claim)
        self._stateful_pods = StatefulPods(
            context.client, context.events, claims, pod_writes=self._pod_writes, claim_writes=self._claim_writes
        )

    def watches(self) -> Iterable[Watch]:
        """StatefulSets, the pods they manage or might adopt, their revisions, and claims of their pods."""
        return (
            Watch(StatefulSet, own_key),
            Watch(pod_pb2.Pod, self._pod_keys),
            Watch(Revision, lambda old, new: owner_keys(API_VERSION, KIND, old, new)),
            Watch(Claim, self._claim_keys),
        )

    def first_keys(self) -> Iterable[str]:
        """None: every StatefulSet is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """One step of one StatefulSet. Raises the first error of its pods, after the status was written."""
        stateful_set = self._sets.get(key)
        if stateful_set is None:
            for writes in self._all_writes():
                writes.forget(key)
            return None
        if not all(writes.are_met(key) for writes in self._all_writes()):
            return RequeueAfter(_LAG_S)
        try:
            selector = from_label_selector(stateful_set.spec.selector)
        except SelectorError as err:
            raise Terminal(f"stateful set {key}: spec.selector: {err}") from err
        pods = await self._own_pods(key, stateful_set, selector)
        if is_being_deleted(stateful_set):
            await self._write_last_status(stateful_set, pods)
            return None
        revisions = await self._history.bring_up(key, stateful_set, selector)
        current = revisions.named(stateful_set.status.currentRevision)
        goal = goal_of(stateful_set, current=current.metadata.name, update=revisions.update.metadata.name)
        now = self._clock.now().timestamp()
        steps = plan(goal, pods, now=now)
        error: APIError | None = None
        is_held_up = False
        try:
            planned = (goal, steps, (current, revisions.update))
            is_held_up = not await self._carry_out(key, stateful_set, planned, pods)
        except APIError as err:
            error = err
        await self._write_status(stateful_set, goal, pods, revisions.collisions)
        if error is not None and not is_namespace_ending(error):
            raise error
        in_use = {current.metadata.name, *(pod.labels.get(REVISION_LABEL, "") for pod in pods)}
        await self._history.shorten(key, stateful_set, revisions, in_use)
        if is_held_up or not all(writes.are_met(key) for writes in self._all_writes()):
            return RequeueAfter(_LAG_S)
        wait_s = next_available(goal, pods, now=now)
        return RequeueAfter(wait_s) if wait_s is not None else None

    async def _carry_out(self, key: str, stateful_set: StatefulSet, planned: _Planned, pods: Sequence[PodView]) -> bool:
        """False where a pod could not be made yet, because a claim of its name is still going."""
        goal, steps, (current, update) = planned
        await self._stateful_pods.settle_identity(key, stateful_set, pods)
        # Owners first: a condemned pod's claims must be its own before it goes.
        await self._stateful_pods.settle_owners(key, stateful_set, pods, steps.condemned)
        for pod in steps.recreate:
            self._tell_of_recreation(stateful_set, pod)
            await self._stateful_pods.delete(key, stateful_set, pod)
        is_clean = True
        for number in steps.create:
            name = goal.revision_for(number)
            template = template_of(current if name == current.metadata.name else update)
            is_clean = (
                await self._stateful_pods.create(key, stateful_set, number, template=template, revision=name)
                and is_clean
            )
        for pod in steps.delete:
            await self._stateful_pods.delete(key, stateful_set, pod)
        for pod in pods:
            of_pod = number_of(pod.name, goal.name)
            if of_pod is not None and pod.phase == "Pending" and not pod.is_deleting:
                # A claim may have been deleted between the pod's creation and its start.
                await self._stateful_pods.ensure_claims(key, stateful_set, of_pod)
        return is_clean

    def _tell_of_recreation(self, stateful_set: StatefulSet, pod: PodView) -> None:
        has_failed = pod.phase == "Failed"
        word = "failed" if has_failed else "terminated"
        self._events.event(
            stateful_set,
            "Warning" if has_failed else "Normal",
            f"Recreating{word.title()}Pod",
            f"StatefulSet {namespaced_name(stateful_set)} is recreating {word} Pod {pod.name}",
        )

    async def _write_last_status(self, stateful_set: StatefulSet, pods: Sequence[PodView]) -> None:
        """Count the pods of a set that is going. A revision made for it now would be deleted with it, and made anew."""
        status = stateful_set.status
        goal = goal_of(stateful_set, current=status.currentRevision, update=status.updateRevision)
        await self._write_status(stateful_set, goal, pods, status.collisionCount)

    async def _write_status(
        self, stateful_set: StatefulSet, goal: Goal, pods: Sequence[PodView], collisions: int
    ) -> None:
        status = status_of(stateful_set, goal, pods, collisions=collisions, now=self._clock.now().timestamp())
        if status == stateful_set.status:
            return
        stateful_set.status.CopyFrom(status)
        key = namespaced_name(stateful_set)
        try:
            self._own_writes.wrote(key, await self._client.update_status(stateful_set))
        except NotFound:
            # Deleted while we worked on it: nobody is left to be told.
            for writes in self._all_writes():
                writes.forget(key)

    async def _own_pods(self, key: str, stateful_set: StatefulSet, selector: Selector) -> tuple[PodView, ...]:
        metadata, store = stateful_set.metadata, self._pods.store
        own = [pod for _, pod in store.projections_by_index(CONTROLLER_INDEX, metadata.uid)]
        orphans = [
            pod
            for _, pod in store.projections_by_index(CONTROLLER_INDEX, orphans_in(metadata.namespace))
            if number_of(pod.name, metadata.name) is not None
        ]
        reference = new_controller_ref(stateful_set, API_VERSION, KIND)
        owned = sort_out(stateful_set, selector, [*own, *orphans])
        return await self._adopter.settle(stateful_set, reference, owned, lambda pod: self._pod_writes.wrote(key, pod))

    def _all_writes(self) -> tuple[Any, ...]:
        return self._own_writes, self._pod_writes, self._revision_writes, self._claim_writes

    def _pod_keys(self, old: Any, new: Any) -> Iterable[str]:
        keys = owner_keys(API_VERSION, KIND, old, new)
        if new is not None and get_controller_of(new) is None and not is_being_deleted(new):
            for stateful_set in self._sets.by_index(NAMESPACE_INDEX, new.metadata.namespace):
                if number_of(new.metadata.name, stateful_set.metadata.name) is not None:
                    keys[namespaced_name(stateful_set)] = None
        return keys

    def _claim_keys(self, old: Any, new: Any) -> Iterable[str]:
        """A claim that is gone, or just written by us, is looked at; what binding does to it is not."""
        claim = new if new is not None else old
        if old is not None and new is not None and old.metadata.ownerReferences == new.metadata.ownerReferences:
            return ()
        return [
            namespaced_name(stateful_set)
            for stateful_set in self._sets.by_index(NAMESPACE_INDEX, claim.metadata.namespace)
            if any(
                claim.metadata.name.startswith(f"{template.metadata.name}-{stateful_set.metadata.name}-")
                for template in stateful_set.spec.volumeClaimTemplates
            )
        ]
