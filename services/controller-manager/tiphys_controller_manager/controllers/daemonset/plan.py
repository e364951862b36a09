"""Which pods of a DaemonSet come and go next, and the status that says how it stands; pure.

Source: kubernetes pkg/controller/daemon/daemon_controller.go and update.go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tiphys.api.apps.v1 import apps_pb2
from tiphys_controller_manager.controllers.daemonset.placement import HASH_LABEL, Fate
from tiphys_controller_manager.controllers.deployment.rolling import scaled
from tiphys_controller_manager.pods import PodView

_ROLLING: Final = "RollingUpdate"

Fates = Mapping[str, Fate]
PodsByNode = Mapping[str, Sequence[PodView]]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a DaemonSet wants of its pods. Of max_unavailable and max_surge one is 0 and the other more."""

    revision_hash: str
    is_rolling: bool
    max_unavailable: int
    max_surge: int
    min_ready_s: int

    def is_new(self, pod: PodView) -> bool:
        """Whether a pod is of the present template."""
        return pod.labels.get(HASH_LABEL) == self.revision_hash

    def is_available(self, pod: PodView, *, now: float) -> bool:
        """Whether a pod does its work, and has long enough."""
        return not pod.is_deleting and pod.available_in(self.min_ready_s, now=now) == 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now: nodes to make pods for, pods to delete, and ended pods to delete after telling of them."""

    create: tuple[str, ...] = ()
    delete: tuple[PodView, ...] = ()
    ended: tuple[PodView, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.create or self.delete or self.ended)


@dataclass(slots=True)
class _Draft:
    create: list[str] = field(default_factory=list)
    delete: list[PodView] = field(default_factory=list)
    ended: list[PodView] = field(default_factory=list)

    def plan(self) -> Plan:
        return Plan(tuple(self.create), tuple(self.delete), tuple(self.ended))


def goal_of(daemon_set: apps_pb2.DaemonSet, fates: Fates, revision_hash: str) -> Goal:
    """The goal of a DaemonSet that wants these nodes; shares of them are rounded up."""
    spec = daemon_set.spec
    rolling = spec.updateStrategy.rollingUpdate
    desired = sum(1 for fate in fates.values() if fate is Fate.RUNS)
    surge = scaled(rolling.maxSurge, desired, round_up=True) if rolling.HasField("maxSurge") else 0
    away = scaled(rolling.maxUnavailable, desired, round_up=True) if rolling.HasField("maxUnavailable") else 1
    # Both can come to nothing, as 10 % of no node: an update must still get on.
    away = away if away or surge else 1
    return Goal(revision_hash, spec.updateStrategy.type == _ROLLING, away, surge, spec.minReadySeconds)


def by_node(pods: Iterable[PodView]) -> dict[str, list[PodView]]:
    """Pods by the node that they run on or are made for, the oldest first; those that ended and go are left out."""
    found: dict[str, list[PodView]] = {}
    for pod in pods:
        node = pod.node or pod.pinned_to
        if node and not (pod.is_finished and pod.is_deleting):
            found.setdefault(node, []).append(pod)
    for there in found.values():
        if len(there) > 1:
            there.sort(key=lambda pod: (not pod.node, pod.created, pod.name))
    return found


def plan(goal: Goal, fates: Fates, pods: PodsByNode, held: Collection[str], *, now: float) -> Plan:
    """The next steps; now is in seconds since the epoch. On held nodes a failed pod has still to wait.

    An update goes on only where all else is settled: what it counts must be there.
    """
    settled = _settle(goal, fates, pods, held, now=now)
    if not settled.is_empty or not goal.is_rolling:
        return settled
    return _surge(goal, fates, pods, now=now) if goal.max_surge else _replace(goal, fates, pods, now=now)


def _settle(goal: Goal, fates: Fates, pods: PodsByNode, held: Collection[str], *, now: float) -> Plan:
    """One pod where one belongs, none elsewhere."""
    draft = _Draft()
    for node, fate in fates.items():
        there = pods.get(node)
        if there is None:
            if fate is Fate.RUNS:
                draft.create.append(node)
        elif fate is Fate.LEAVES:
            draft.delete += [pod for pod in there if not pod.is_deleting]
        elif len(there) > 1 or not there[0].is_active:
            running = [pod for pod in there if pod.is_active]
            ended = [pod for pod in there if pod.is_finished and not pod.is_deleting]
            draft.ended += [pod for pod in ended if pod.phase != "Failed" or node not in held]
            if len(running) > 1:
                draft.delete += _surplus(goal, running, now=now)
    for node, there in pods.items():
        if node not in fates:
            # The node is gone. Pods that ran there are for the pod collector; nobody would collect the others.
            draft.delete += [pod for pod in there if not pod.node and not pod.is_deleting]
    return draft.plan()


def _surplus(goal: Goal, running: Sequence[PodView], *, now: float) -> list[PodView]:
    """Of several pods on a node, the oldest first, those that are too many."""
    if not (goal.is_rolling and goal.max_surge):
        return list(running[1:])
    new = next((pod for pod in running if goal.is_new(pod)), None)
    old = next((pod for pod in running if not goal.is_new(pod)), None)
    surplus = [pod for pod in running if pod is not new and pod is not old]
    if new is not None and old is not None and (not old.is_ready or goal.is_available(new, now=now)):
        surplus.append(old)
    return surplus


def _old_and_new(goal: Goal, there: Sequence[PodView]) -> tuple[PodView | None, PodView | None]:
    """The old and the new pod of a node, of those that do not go."""
    staying = [pod for pod in there if not pod.is_deleting]
    old = next((pod for pod in staying if not goal.is_new(pod)), None)
    return old, next((pod for pod in staying if goal.is_new(pod)), None)


def _replace(goal: Goal, fates: Fates, pods: PodsByNode, *, now: float) -> Plan:
    """Delete old pods, as many as may be away; those that do no work anyway cost nothing."""
    away = 0
    broken: list[PodView] = []
    candidates: list[PodView] = []
    for node in _wanted(fates):
        there = pods.get(node, ())
        if len(there) == 1 and goal.is_new(there[0]) and goal.is_available(there[0], now=now):
            # As nearly all of them mostly are.
            continue
        old, new = _old_and_new(goal, there)
        if old is not None and new is None:
            if goal.is_available(old, now=now):
                candidates.append(old)
                continue
            broken.append(old)
            away += 1
        elif new is None or old is not None or not goal.is_available(new, now=now):
            away += 1
    return Plan(delete=(*broken, *candidates[: max(goal.max_unavailable - away, 0)]))


def _surge(goal: Goal, fates: Fates, pods: PodsByNode, *, now: float) -> Plan:
    """Make new pods beside old ones, as many as may be too many; an old one goes when the new one is available."""
    surging = 0
    free: list[str] = []
    candidates: list[str] = []
    done: list[PodView] = []
    for node in _wanted(fates):
        old, new = _old_and_new(goal, pods.get(node, ()))
        if old is None:
            continue
        if new is None:
            (candidates if goal.is_available(old, now=now) else free).append(node)
        elif not goal.is_available(old, now=now) or goal.is_available(new, now=now):
            done.append(old)
        else:
            surging += 1
    return Plan(create=(*free, *candidates[: max(goal.max_surge - surging, 0)]), delete=tuple(done))


def _wanted(fates: Fates) -> Iterable[str]:
    """Where a pod that goes comes again: elsewhere an update would only take it away."""
    return (node for node, fate in fates.items() if fate is Fate.RUNS)


def status_of(
    daemon_set: apps_pb2.DaemonSet, goal: Goal, fates: Fates, pods: PodsByNode, *, now: float
) -> apps_pb2.DaemonSetStatus:
    """The status of a DaemonSet that has these pods; of several on a node the oldest counts."""
    status = apps_pb2.DaemonSetStatus()
    status.CopyFrom(daemon_set.status)
    desired = current = misplaced = ready = available = updated = 0
    for node, fate in fates.items():
        there = pods.get(node)
        if fate is not Fate.RUNS:
            misplaced += there is not None
            continue
        desired += 1
        if there is None:
            continue
        current += 1
        oldest = there[0]
        updated += goal.is_new(oldest)
        if oldest.is_ready:
            ready += 1
            available += goal.is_available(oldest, now=now)
    status.observedGeneration = daemon_set.metadata.generation
    status.desiredNumberScheduled, status.currentNumberScheduled = desired, current
    status.numberMisscheduled, status.updatedNumberScheduled = misplaced, updated
    status.numberReady, status.numberAvailable = ready, available
    status.numberUnavailable = desired - available
    return status
