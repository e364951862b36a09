"""Which child must run, and when one that died is started again: state in, decisions out, no process touched.

A child that dies is started again at once the first time, then after a delay that doubles from 0.25 s to 10 s; one that
has run for 30 s starts over. Source of the shape: the kubelet's own crash back-off, made short because others wait for
the control plane.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from tiphys_cluster.child import ChildSpec
from tiphys_component.backoff import backoff_delay

BASE_S = 0.25
CAP_S = 10.0
STABLE_S = 30.0


class State(enum.StrEnum):
    """Where a child stands."""

    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(slots=True)
class Child:
    """One child. pid is 0 unless RUNNING or STOPPING; deadline is when BACKOFF ends or STOPPING turns to SIGKILL."""

    spec: ChildSpec
    state: State = State.STOPPED
    pid: int = 0
    started: float | None = None
    restarts: int = 0
    failures: int = 0
    deadline: float = 0.0
    last_exit: str = ""
    successor: ChildSpec | None = None


class Supervisor:
    """The children of one zygote, by name. Invariant: each pid belongs to one child."""

    def __init__(self) -> None:
        self._children: dict[str, Child] = {}

    @property
    def children(self) -> list[Child]:
        """All children, in the order they were first asked for."""
        return list(self._children.values())

    def get(self, name: str) -> Child | None:
        """The child of that name."""
        return self._children.get(name)

    def wants_start(self, spec: ChildSpec, now: float) -> bool:
        """Note that this child must run; whether it can be started now.

        False when it runs already, or when a different version of it must end first: then stop is due for it, and
        exited() will answer with the new one.
        """
        child = self._children.get(spec.name)
        if child is None:
            self._children[spec.name] = Child(spec)
            return True
        if child.state in (State.RUNNING, State.STOPPING):
            if child.state is State.RUNNING and child.spec == spec:
                return False
            child.successor = spec
            return False
        child.spec, child.failures, child.deadline = spec, 0, now
        return True

    def schedule(self, name: str, now: float) -> None:
        """Have a child that can be started among the due_starts from now on."""
        child = self._children[name]
        child.state, child.deadline = State.BACKOFF, now

    def started(self, name: str, pid: int, now: float) -> None:
        """Note that the child runs as pid."""
        child = self._children[name]
        if child.started is not None:
            child.restarts += 1
        child.state, child.pid, child.started = State.RUNNING, pid, now

    def adopted(self, spec: ChildSpec, pid: int, restarts: int, now: float) -> None:
        """Note a child that an earlier zygote started."""
        self._children[spec.name] = Child(spec, State.RUNNING, pid, now, restarts)

    def exited(self, pid: int, how: str, now: float) -> Child | None:
        """Note the end of a process; the child it was, None when it was none of ours.

        Afterwards the child is STOPPED if that was wanted, otherwise in BACKOFF with its deadline.
        """
        child = next((child for child in self._children.values() if child.pid == pid and pid), None)
        if child is None:
            return None
        child.pid, child.last_exit = 0, how
        if child.successor is not None:
            child.spec, child.successor = child.successor, None
            child.state, child.failures, child.deadline = State.BACKOFF, 0, now
        elif child.state is State.STOPPING:
            child.state = State.STOPPED
        else:
            self._back_off(child, now)
        return child

    def start_failed(self, name: str, how: str, now: float) -> None:
        """Note that the child could not even be forked."""
        child = self._children[name]
        child.last_exit = how
        self._back_off(child, now)

    @staticmethod
    def _back_off(child: Child, now: float) -> None:
        if child.started is not None and now - child.started >= STABLE_S:
            child.failures = 0
        delay = 0.0 if child.failures == 0 else backoff_delay(child.failures - 1, base_s=BASE_S, cap_s=CAP_S)
        child.failures += 1
        child.state, child.deadline = State.BACKOFF, now + delay

    def stop(self, name: str, now: float) -> Child | None:
        """Note that the child must end; it, if it must be signalled now."""
        child = self._children.get(name)
        if child is None or child.state is State.STOPPED:
            return None
        if child.state is State.BACKOFF:
            child.state, child.successor = State.STOPPED, None
            return None
        if child.state is State.STOPPING:
            return None
        child.state, child.deadline = State.STOPPING, now + child.spec.stop_timeout_s
        return child

    def forget(self, name: str) -> None:
        """Drop a child that is stopped."""
        child = self._children.get(name)
        if child is not None and child.state is State.STOPPED:
            del self._children[name]

    def due_starts(self, now: float) -> list[Child]:
        """The children whose back-off has passed."""
        return [child for child in self._children.values() if child.state is State.BACKOFF and child.deadline <= now]

    def due_kills(self, now: float) -> list[Child]:
        """The children that did not stop in time; each is named once a second until it is gone."""
        late = [child for child in self._children.values() if child.state is State.STOPPING and child.deadline <= now]
        for child in late:
            child.deadline = now + 1.0
        return late

    def next_deadline(self) -> float | None:
        """When due_starts or due_kills next has something."""
        waiting = (State.BACKOFF, State.STOPPING)
        return min((child.deadline for child in self._children.values() if child.state in waiting), default=None)

    def next_stage(self) -> list[Child]:
        """What a shutdown stops next: all that are not stopped in the highest stage that has any."""
        alive = [child for child in self._children.values() if child.state is not State.STOPPED]
        highest = max((child.spec.stage for child in alive), default=0)
        return [child for child in alive if child.spec.stage == highest]
