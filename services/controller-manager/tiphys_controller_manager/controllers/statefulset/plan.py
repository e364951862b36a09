"""Which pods of a StatefulSet come and go next, and the status that says how it stands; pure.

Source: kubernetes pkg/controller/statefulset/stateful_set_control.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tiphys.api.apps.v1 import apps_pb2
from tiphys_apimachinery.meta import is_being_deleted
from tiphys_controller_manager.controllers.deployment.rolling import scaled
from tiphys_controller_manager.pods import PodView

REVISION_LABEL: Final = "controller-revision-hash"
_NUMBERED: Final = re.compile(r"(.+)-([0-9]+)$")
_ROLLING: Final = "RollingUpdate"


@dataclass(frozen=True, slots=True)
class Goal:
    """What a set wants. Pods have the numbers from start on; those below partition keep the current revision."""

    name: str
    replicas: int
    start: int
    is_ordered: bool
    is_rolling: bool
    partition: int
    # None where the set says nothing: then one after another, and the one that is not ready goes first.
    max_unavailable: int | None
    min_ready_s: int
    is_ending: bool
    current: str
    update: str

    def revision_for(self, number: int) -> str:
        """The revision that a new pod of this number is made from."""
        return self.current if self.is_rolling and number < self.start + self.partition else self.update


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now. condemned are the pods beyond the wanted numbers, deleted now or later."""

    create: tuple[int, ...] = ()
    delete: tuple[PodView, ...] = ()
    recreate: tuple[PodView, ...] = ()
    condemned: tuple[PodView, ...] = ()


@dataclass(slots=True)
class _Draft:
    create: list[int] = field(default_factory=list)
    delete: list[PodView] = field(default_factory=list)
    recreate: list[PodView] = field(default_factory=list)


def goal_of(stateful_set: apps_pb2.StatefulSet, *, current: str, update: str) -> Goal:
    """The goal of a set with these revisions."""
    spec = stateful_set.spec
    rolling = spec.updateStrategy.rollingUpdate
    most = scaled(rolling.maxUnavailable, spec.replicas, round_up=True) if rolling.HasField("maxUnavailable") else None
    return Goal(
        name=stateful_set.metadata.name,
        replicas=spec.replicas,
        start=spec.ordinals.start,
        is_ordered=spec.podManagementPolicy != "Parallel",
        is_rolling=spec.updateStrategy.type == _ROLLING,
        partition=rolling.partition,
        max_unavailable=max(most, 1) if most is not None else None,
        min_ready_s=spec.minReadySeconds,
        is_ending=is_being_deleted(stateful_set),
        current=current,
        update=update,
    )


def number_of(name: str, set_name: str) -> int | None:
    """The number of a pod of the set; None for a name that is no pod's of it."""
    found = _NUMBERED.match(name)
    if found is None or found[1] != set_name or (len(found[2]) > 1 and found[2][0] == "0"):
        return None
    return int(found[2])


def plan(goal: Goal, pods: Sequence[PodView], *, now: float) -> Plan:
    """The next steps, from all pods of the set; now is in seconds since the epoch.

    A pod that is gone, failed or finished is made again only when nothing of that name is left: two pods of one
    number would write to one volume.
    """
    by_number = {number: pod for pod in pods if (number := number_of(pod.name, goal.name)) is not None}
    wanted = range(goal.start, goal.start + goal.replicas)
    condemned = tuple(by_number[number] for number in sorted(by_number, reverse=True) if number not in wanted)
    if goal.is_ending:
        return Plan(condemned=condemned)
    draft = _Draft()
    kept = {number: by_number.get(number) for number in wanted}
    is_settled = _make(goal, kept, draft, now)
    if is_settled or not goal.is_ordered:
        is_settled = _shrink(goal, kept, condemned, draft, now=now)
    if (is_settled or not goal.is_ordered) and goal.is_rolling:
        _update(goal, kept, draft, now)
    return Plan(tuple(draft.create), tuple(draft.delete), tuple(draft.recreate), condemned)


def is_available(pod: PodView, goal: Goal, *, now: float) -> bool:
    """Whether the pod runs, is ready, and has been so for long enough."""
    return pod.phase == "Running" and pod.available_in(goal.min_ready_s, now=now) == 0.0


def next_available(goal: Goal, pods: Sequence[PodView], *, now: float) -> float | None:
    """Seconds until the next ready pod counts as available; None when there is none to wait for."""
    return min(filter(None, (pod.available_in(goal.min_ready_s, now=now) for pod in pods)), default=None)


def status_of(
    stateful_set: apps_pb2.StatefulSet, goal: Goal, pods: Sequence[PodView], *, collisions: int, now: float
) -> apps_pb2.StatefulSetStatus:
    """The status of a set that has these pods."""
    status = apps_pb2.StatefulSetStatus()
    status.CopyFrom(stateful_set.status)
    mine = [pod for pod in pods if number_of(pod.name, goal.name) is not None]
    ready = [pod for pod in mine if pod.phase == "Running" and pod.is_ready]
    status.observedGeneration = stateful_set.metadata.generation
    status.replicas = len(mine)
    status.readyReplicas = len(ready)
    status.availableReplicas = sum(1 for pod in ready if is_available(pod, goal, now=now))
    status.currentReplicas = _count(mine, goal.current)
    status.updatedReplicas = _count(mine, goal.update)
    status.currentRevision = goal.current
    status.updateRevision = goal.update
    status.collisionCount = collisions
    is_complete = status.updatedReplicas == status.replicas == status.readyReplicas
    if goal.is_rolling and is_complete:
        status.currentRevision = goal.update
        status.currentReplicas = status.updatedReplicas
    return status


def _count(pods: Sequence[PodView], revision: str) -> int:
    return sum(1 for pod in pods if not pod.is_deleting and pod.labels.get(REVISION_LABEL) == revision)


def _make(goal: Goal, kept: Mapping[int, PodView | None], draft: _Draft, now: float) -> bool:
    """Make what is missing, in order one at a time; whether all pods are there and well."""
    is_settled = True
    for number, pod in kept.items():
        if pod is None:
            draft.create.append(number)
        elif pod.is_finished:
            if not pod.is_deleting:
                draft.recreate.append(pod)
        elif not pod.is_deleting and is_available(pod, goal, now=now):
            continue
        is_settled = False
        if goal.is_ordered:
            break
    return is_settled


def _shrink(
    goal: Goal, kept: Mapping[int, PodView | None], condemned: Sequence[PodView], draft: _Draft, *, now: float
) -> bool:
    """Delete what is too many, from the highest number down; whether none is left."""
    if not goal.is_ordered:
        draft.delete += [pod for pod in condemned if not pod.is_deleting]
        return not condemned
    if not condemned:
        return True
    # A pod that is not well holds the others up, unless it is the first of those and may go itself. One that has
    # ended will never be well: it holds up nobody and goes in its turn (in Kubernetes two of those wait for ever).
    running = [pod for pod in (*kept.values(), *reversed(condemned)) if pod and not pod.is_finished]
    unwell = [pod for pod in running if not _is_well(pod, goal, now)]
    pod = condemned[0]
    is_held_up = not pod.is_finished and not is_available(pod, goal, now=now) and pod is not unwell[0]
    if not pod.is_deleting and not is_held_up:
        draft.delete.append(pod)
    return False


def _update(goal: Goal, kept: Mapping[int, PodView | None], draft: _Draft, now: float) -> None:
    """Delete pods of another revision, from the highest number down, so that they are made anew."""
    targets = [(number, kept[number]) for number in sorted(kept, reverse=True)]
    if goal.max_unavailable is not None:
        away = sum(1 for _, pod in targets if pod is None or not _is_well(pod, goal, now))
        left = goal.max_unavailable - away
    for number, pod in targets:
        if number < goal.start + goal.partition:
            return
        is_old = pod is not None and pod.labels.get(REVISION_LABEL) != goal.update
        if pod is not None and is_old and not pod.is_deleting:
            if goal.max_unavailable is not None and left <= 0:
                return
            if pod not in draft.recreate:
                draft.delete.append(pod)
            if goal.max_unavailable is None:
                return
            left -= 1
        elif goal.max_unavailable is None and (pod is None or not _is_well(pod, goal, now)):
            return


def _is_well(pod: PodView, goal: Goal, now: float) -> bool:
    return not pod.is_deleting and is_available(pod, goal, now=now)
