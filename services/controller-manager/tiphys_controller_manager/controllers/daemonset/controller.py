"""Keeps one pod on each node that a DaemonSet chooses, rolls out new templates, and says in its status how it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import node_pb2, pod_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.errors import APIError, NotFound
from tiphys_apimachinery.labels import Selector, SelectorError, from_label_selector
from tiphys_apimachinery.meta import is_being_deleted, namespaced_name, new_controller_ref
from tiphys_client.controller import RequeueAfter, Terminal
from tiphys_controller_manager.controllers.daemonset.failed_pods import FailedPods
from tiphys_controller_manager.controllers.daemonset.placement import HASH_LABEL, Fate, Rules, make_pod, rules_of
from tiphys_controller_manager.controllers.daemonset.plan import Goal, Plan, by_node, goal_of, plan, status_of
from tiphys_controller_manager.controllers.replicaset.plan import BURST, next_available, slow_start
from tiphys_controller_manager.frame import Context, Watch, own_key
from tiphys_controller_manager.history import History, Revisions
from tiphys_controller_manager.nodes import NodeView, node_view
from tiphys_controller_manager.ownership import Adopter, owner_keys, selecting_keys, sort_out
from tiphys_controller_manager.pod_control import PodControl
from tiphys_controller_manager.pods import CONTROLLER_INDEX, PodView, orphans_in
from tiphys_controller_manager.revisions import API_VERSION, DAEMON_SETS, Revision

DaemonSet = apps_pb2.DaemonSet
KIND: Final = DAEMON_SETS.kind
# How long to wait for a view that lags; the events that end the wait come by themselves.
_LAG_S: Final = 1.0


@dataclass(slots=True)
class _Placement:
    """What was found of one generation of a DaemonSet: its rules, and the fate of each version of a node."""

    uid: str
    generation: int
    rules: Rules
    fates: dict[str, tuple[NodeView, Fate]] = field(default_factory=dict)

    def fate(self, view: NodeView) -> Fate:
        known = self.fates.get(view.name)
        # Mostly the very same one: nodes rarely change in what is looked at.
        if known is not None and (known[0] is view or known[0] == view):
            return known[1]
        fate = self.rules.fate(view)
        self.fates[view.name] = (view, fate)
        return fate


class DaemonSetController:
    """Reconciles one DaemonSet at a time; keys are namespace/name."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._clock = context.clock
        self._events = context.events
        self._sets = context.informers.of(DaemonSet)
        self._nodes = context.informers.of(node_pb2.Node)
        self._pods = context.informers.of(pod_pb2.Pod)
        self._pod_writes = context.expectations(pod_pb2.Pod)
        self._own_writes = context.expectations(DaemonSet)
        self._revision_writes = context.expectations(Revision)
        self._control = PodControl(context.client, context.events, self._pod_writes)
        self._adopter = Adopter(context.client, pod_pb2.Pod)
        self._history = History(
            context.client, context.informers.of(Revision), self._revision_writes, owners=DAEMON_SETS
        )
        self._failed = FailedPods(context.clock)
        self._placements: dict[str, _Placement] = {}

    def watches(self) -> Iterable[Watch]:
        """DaemonSets, the pods they manage or might adopt, their revisions, and nodes that begin or cease to fit."""
        return (
            Watch(DaemonSet, own_key),
            Watch(pod_pb2.Pod, self._pod_keys),
            Watch(Revision, lambda old, new: owner_keys(API_VERSION, KIND, old, new)),
            Watch(node_pb2.Node, self._node_keys),
        )

    def first_keys(self) -> Iterable[str]:
        """None: every DaemonSet is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """One step of one DaemonSet. Raises the first error of its pods, after the status was written."""
        daemon_set = self._sets.get(key)
        if daemon_set is None:
            self._forget(key)
            return None
        if is_being_deleted(daemon_set):
            return None
        if not self._are_writes_met(key):
            return RequeueAfter(_LAG_S)
        try:
            selector = from_label_selector(daemon_set.spec.selector)
        except SelectorError as err:
            raise Terminal(f"daemon set {key}: spec.selector: {err}") from err
        reference = new_controller_ref(daemon_set, API_VERSION, KIND)
        pods = await self._own_pods(key, daemon_set, selector, reference)
        revisions = await self._history.bring_up(key, daemon_set, selector)
        placement = self._placement(key, daemon_set)
        # With ten thousand nodes each of these steps takes tens of milliseconds, between which others get their turn.
        await asyncio.sleep(0)
        fates = {view.name: placement.fate(view) for _, view in self._nodes.store.projections()}
        await asyncio.sleep(0)
        goal = goal_of(daemon_set, fates, revisions.update.metadata.labels[HASH_LABEL])
        there = by_node(pods)
        await asyncio.sleep(0)
        held = self._failed.held(key, daemon_set.metadata.generation)
        steps = plan(goal, fates, there, held, now=self._now())
        error = await self._carry_out(key, daemon_set, reference, steps, revision_hash=goal.revision_hash)
        status = status_of(daemon_set, goal, fates, there, now=self._now())
        status.collisionCount = revisions.collisions
        await self._write_status(daemon_set, status)
        if error is not None:
            raise error
        await self._shorten_history(key, daemon_set, revisions, pods)
        if not self._are_writes_met(key):
            return RequeueAfter(_LAG_S)
        return self._next(goal, pods, held.values())

    def _next(self, goal: Goal, pods: Sequence[PodView], held_s: Iterable[float]) -> RequeueAfter | None:
        """When time alone will change something: a pod becomes available, or a failed one may go."""
        available_s = next_available(pods, goal.min_ready_s, now=self._now())
        waits = [*held_s, *([available_s] if available_s is not None else [])]
        return RequeueAfter(min(waits)) if waits else None

    async def _carry_out(
        self, key: str, daemon_set: DaemonSet, reference: meta_pb2.OwnerReference, steps: Plan, *, revision_hash: str
    ) -> APIError | None:
        """The first error of pods made and deleted."""
        # The deletions first: a pod that goes may hold the port that the new one needs.
        for pod in steps.ended:
            self._tell_of_end(daemon_set, pod)
            if pod.phase == "Failed":
                self._failed.deleted(key, daemon_set.metadata.generation, pod.node or pod.pinned_to)
        gone = (*steps.ended, *steps.delete)
        error = (await self._control.delete(key, daemon_set, gone)).error if gone else None
        if steps.create:
            nodes = iter(steps.create)
            outcome = await self._control.create(
                key,
                daemon_set,
                lambda: make_pod(daemon_set, reference, node=next(nodes), revision_hash=revision_hash),
                slow_start(min(len(steps.create), BURST)),
            )
            error = error or outcome.error
        return error

    def _tell_of_end(self, daemon_set: DaemonSet, pod: PodView) -> None:
        where = f"daemon pod {pod.key} on node {pod.node}"
        if pod.phase == "Failed":
            text = f"Found failed {where}, will try to kill it"
            self._events.event(daemon_set, "Warning", "FailedDaemonPod", text)
        else:
            text = f"Found succeeded {where}, will try to delete it"
            self._events.event(daemon_set, "Normal", "SucceededDaemonPod", text)

    async def _write_status(self, daemon_set: DaemonSet, status: apps_pb2.DaemonSetStatus) -> None:
        if status == daemon_set.status:
            return
        daemon_set.status.CopyFrom(status)
        key = namespaced_name(daemon_set)
        try:
            self._own_writes.wrote(key, await self._client.update_status(daemon_set))
        except NotFound:
            # Deleted while we worked on it: nobody is left to be told.
            self._forget(key)

    async def _shorten_history(
        self, key: str, daemon_set: DaemonSet, revisions: Revisions, pods: Sequence[PodView]
    ) -> None:
        hashes = {pod.labels.get(HASH_LABEL, "") for pod in pods}
        in_use = {item.metadata.name for item in revisions.known if item.metadata.labels.get(HASH_LABEL) in hashes}
        await self._history.shorten(key, daemon_set, revisions, in_use)

    async def _own_pods(
        self, key: str, daemon_set: DaemonSet, selector: Selector, reference: meta_pb2.OwnerReference
    ) -> tuple[PodView, ...]:
        metadata, store = daemon_set.metadata, self._pods.store
        candidates = [
            pod
            for where in (metadata.uid, orphans_in(metadata.namespace))
            for _, pod in store.projections_by_index(CONTROLLER_INDEX, where)
        ]
        owned = sort_out(daemon_set, selector, candidates)
        return await self._adopter.settle(daemon_set, reference, owned, lambda pod: self._pod_writes.wrote(key, pod))

    def _placement(self, key: str, daemon_set: DaemonSet) -> _Placement:
        uid, generation = daemon_set.metadata.uid, daemon_set.metadata.generation
        known = self._placements.get(key)
        if known is None or (known.uid, known.generation) != (uid, generation):
            known = self._placements[key] = _Placement(uid, generation, rules_of(daemon_set))
        return known

    def _forget(self, key: str) -> None:
        for writes in (self._own_writes, self._pod_writes, self._revision_writes):
            writes.forget(key)
        self._failed.forget(key)
        self._placements.pop(key, None)

    def _are_writes_met(self, key: str) -> bool:
        writes = (self._own_writes, self._pod_writes, self._revision_writes)
        return all(item.are_met(key) for item in writes)

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def _pod_keys(self, old: Any, new: Any) -> Iterable[str]:
        return {**owner_keys(API_VERSION, KIND, old, new), **selecting_keys(self._sets, old, new)}

    def _node_keys(self, old: Any, new: Any) -> Iterable[str]:
        """The DaemonSets for which this node is not what it was; heartbeats say nothing to them."""
        before, after = (node_view(node) if node is not None else None for node in (old, new))
        if before == after:
            return
        # What has had no round yet is not among these, and that round sees all nodes.
        for key, known in self._placements.items():
            if _fate(known, before) is not _fate(known, after):
                yield key
        if after is None and before is not None:
            for known in self._placements.values():
                known.fates.pop(before.name, None)


def _fate(placement: _Placement, view: NodeView | None) -> Fate | None:
    return placement.rules.fate(view) if view is not None else None
