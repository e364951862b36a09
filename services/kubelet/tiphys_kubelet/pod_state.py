"""What must be done for a pod: wanted and observed in, actions out.

Pure: no clock, no I/O, no logging. The worker of the pod carries the actions out, looks again and asks again, until
there is nothing left to do. Level-triggered: any earlier state, a crash of ours included, leads to the same actions.

The rules are those of Kubernetes: a sandbox first; init containers in order, each to its end; sidecars in that order
too, each until it has started; then the regular ones. What exits is started anew as the restart policy says, with a
back-off. A pod whose regular containers have all ended for good is over, and so are its sidecars.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tiphys.api.core.v1.container_pb2 import Container
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_kubelet.observation import ContainerObservation, ContainerPhase, PodObservation
from tiphys_kubelet.pod_spec import (
    ContainerKind,
    as_container,
    kind_of_init,
    restart_policy,
    spec_hash,
)

BACKOFF_BASE_S = 10.0
BACKOFF_CAP_S = 300.0
# A container that ran this long begins with the shortest delay again.
BACKOFF_RESET_S = 600.0
CRASH_LOOP = "CrashLoopBackOff"


@dataclass(frozen=True, slots=True)
class Backoff:
    """The delay that a container waits for after its next end, and when that delay was set."""

    delay_s: float
    set_at: datetime

    def after(self, finished_at: datetime) -> Backoff:
        """The delay that follows a start after an end at this time."""
        if self.is_stale(finished_at):
            return Backoff(BACKOFF_BASE_S, finished_at)
        return Backoff(min(self.delay_s * 2, BACKOFF_CAP_S), finished_at)

    def is_stale(self, finished_at: datetime) -> bool:
        """The container ran long enough for its earlier ends to be forgotten."""
        return (finished_at - self.set_at).total_seconds() > BACKOFF_RESET_S


def next_backoff(entry: Backoff | None, finished_at: datetime) -> Backoff:
    """The entry to remember when a container that ended at this time is started again."""
    return Backoff(BACKOFF_BASE_S, finished_at) if entry is None else entry.after(finished_at)


@dataclass(frozen=True, slots=True)
class StartFailure:
    """Why a container could not be made, and when to try again."""

    reason: str
    message: str
    retry_at: datetime
    spec_hash: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container does not run, as its status says it."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class ProbeVerdict:
    """What the probes of one container say; without a probe of a kind its verdict is the container's running."""

    started: bool = True
    ready: bool = True
    live: bool = True
    message: str = ""


@dataclass(frozen=True, slots=True)
class StopOrder:
    """The pod must end: how long its containers have, and why."""

    grace_s: int
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class PodInputs:
    """Everything a decision depends on."""

    pod: Pod
    observed: PodObservation
    now: datetime
    probes: Mapping[str, ProbeVerdict] = field(default_factory=dict)
    backoffs: Mapping[str, Backoff] = field(default_factory=dict)
    failures: Mapping[str, StartFailure] = field(default_factory=dict)
    stop: StopOrder | None = None
    # Names of containers that were stopped only to be started with other resources.
    restarting: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class CreateSandbox:
    """Make the pod's network and namespaces."""

    attempt: int


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Make and start a container; `after` is the one that it replaces."""

    container: Container
    kind: ContainerKind
    attempt: int
    after: ContainerObservation | None = None


@dataclass(frozen=True, slots=True)
class KillContainer:
    """Stop one container; the next decision sees it exited. grace_s None means the pod's own."""

    target: ContainerObservation
    grace_s: int | None
    message: str


@dataclass(frozen=True, slots=True)
class KillPod:
    """Stop all containers, sidecars last, then the sandboxes. grace_s None means the pod's own."""

    grace_s: int | None
    message: str = ""


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """Forget a dead container that nobody can ask for any more."""

    target: ContainerObservation


Action = CreateSandbox | StartContainer | KillContainer | KillPod | RemoveContainer


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, in order; what containers wait for; when to ask again though nothing happened.

    `ended`: the pod has come to its end, and nothing of it runs.
    """

    actions: tuple[Action, ...] = ()
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    wake_at: datetime | None = None
    ended: bool = False


def plan(inputs: PodInputs) -> Plan:
    """Decides what to do for a pod now."""
    if inputs.stop is not None:
        return _plan_end(inputs, inputs.stop.grace_s, inputs.stop.message)
    if inputs.pod.status.phase in ("Succeeded", "Failed"):
        return _plan_end(inputs, None, "")
    return _Decision(inputs).decide()


def _plan_end(inputs: PodInputs, grace_s: int | None, message: str) -> Plan:
    if inputs.observed.is_alive:
        return Plan(actions=(KillPod(grace_s, message),))
    return Plan(ended=True)


class _Decision:
    """One decision in the making: gathers actions, waits and the next time to look."""

    def __init__(self, inputs: PodInputs) -> None:
        self.inputs = inputs
        self.pod = inputs.pod
        self.observed = inputs.observed
        self.actions: list[Action] = []
        self.waiting: dict[str, Waiting] = {}
        self.wake_at: datetime | None = None

    def decide(self) -> Plan:
        if self._is_over():
            return _plan_end(self.inputs, None, "")
        sandbox = self._sandbox_action()
        if sandbox is not None:
            return Plan(actions=(sandbox,))
        self._ephemeral()
        if self._init():
            self._regular()
        self._collect_dead()
        return Plan(tuple(self.actions), self.waiting, self.wake_at)

    def _is_over(self) -> bool:
        """Every regular container has ended for good, or an init container has failed for good."""
        if restart_policy(self.pod) == "Always":
            return False
        newest = [self.observed.latest(c.name) for c in self.pod.spec.containers]
        if newest and all(c is not None and self._ended_for_good(c) for c in newest):
            return True
        if restart_policy(self.pod) != "Never" or any(newest):
            return False
        inits = (c for c in self.pod.spec.initContainers if kind_of_init(c) is ContainerKind.INIT)
        ends = (self.observed.latest(c.name) for c in inits)
        return any(end is not None and end.phase is ContainerPhase.EXITED and end.exit_code != 0 for end in ends)

    def _ended_for_good(self, container: ContainerObservation) -> bool:
        if container.phase is not ContainerPhase.EXITED:
            return False
        policy = restart_policy(self.pod)
        if container.name in self.inputs.restarting:
            return False
        return policy == "Never" or (policy == "OnFailure" and container.exit_code == 0)

    def _sandbox_action(self) -> Action | None:
        """None when the newest sandbox is good."""
        sandbox = self.observed.sandbox
        ready = [box for box in self.observed.sandboxes if box.ready]
        if sandbox is None:
            return CreateSandbox(0)
        broken = (
            len(ready) > 1
            or sandbox.host_network != self.pod.spec.hostNetwork
            or (sandbox.ready and not sandbox.ips and not self.pod.spec.hostNetwork)
        )
        if sandbox.ready and not broken:
            return None
        if self.observed.is_alive:
            return KillPod(None, "Pod sandbox changed, it will be killed and re-created.")
        return CreateSandbox(sandbox.attempt + 1)

    def _ephemeral(self) -> None:
        for ephemeral in self.pod.spec.ephemeralContainers:
            container = as_container(ephemeral)
            if self.observed.latest(container.name) is None:
                self._start(container, ContainerKind.EPHEMERAL, None)

    def _init(self) -> bool:
        """Advances the init containers; true when the regular ones may run."""
        containers = list(self.pod.spec.initContainers)
        began = any(self.observed.active(c.name) for c in self.pod.spec.containers)
        reached = max((i for i, c in enumerate(containers) if self.observed.active(c.name)), default=-1)
        for i, container in enumerate(containers):
            passed = i < reached or began
            if kind_of_init(container) is ContainerKind.SIDECAR:
                if not self._sidecar(container, passed=passed):
                    return False
            elif not began and not self._init_container(container, passed=passed):
                return False
        return True

    def _sidecar(self, container: Container, *, passed: bool) -> bool:
        current = self.observed.active(container.name)
        if current is None or not current.is_running:
            self._start(container, ContainerKind.SIDECAR, current)
            return passed
        if self._kill_if_unwell(container, current):
            return passed
        return passed or self._verdict(current).started

    def _init_container(self, container: Container, *, passed: bool) -> bool:
        current = self.observed.active(container.name)
        if current is None or current.phase is ContainerPhase.CREATED:
            if not passed:
                self._start(container, ContainerKind.INIT, current)
            return passed
        if current.phase is ContainerPhase.RUNNING:
            return False
        if current.phase is ContainerPhase.EXITED and current.exit_code == 0:
            return True
        self._start(container, ContainerKind.INIT, current)
        return False

    def _regular(self) -> None:
        for container in self.pod.spec.containers:
            current = self.observed.active(container.name)
            if current is None:
                self._start(container, ContainerKind.REGULAR, self._from_older_sandbox(container))
            elif current.is_running:
                self._kill_if_unwell(container, current)
            elif not self._ended_for_good(current):
                self._start(container, ContainerKind.REGULAR, current)

    def _from_older_sandbox(self, container: Container) -> ContainerObservation | None:
        # What ended for good in an older sandbox is not run again in the new one.
        return self.observed.latest(container.name)

    def _kill_if_unwell(self, container: Container, current: ContainerObservation) -> bool:
        name, grace_s = container.name, None
        if current.spec_hash and current.spec_hash != spec_hash(container):
            message = f"Container {name} definition changed, will be restarted"
        elif not self._verdict(current).live:
            message = self._verdict(current).message or f"Container {name} failed liveness probe, will be restarted"
            grace_s = _probe_grace(container, started=self._verdict(current).started)
        else:
            return False
        self.actions.append(KillContainer(current, grace_s, message))
        return True

    def _verdict(self, container: ContainerObservation) -> ProbeVerdict:
        return self.inputs.probes.get(container.id, ProbeVerdict())

    def _start(self, container: Container, kind: ContainerKind, after: ContainerObservation | None) -> None:
        if kind is ContainerKind.REGULAR and after is not None and self._ended_for_good(after):
            return
        failure = self.inputs.failures.get(container.name)
        if failure is not None and failure.spec_hash == spec_hash(container) and self.inputs.now < failure.retry_at:
            self.waiting[container.name] = Waiting(failure.reason, failure.message)
            self._wake(failure.retry_at)
            return
        if after is not None and self._held_back(container, after):
            return
        self.actions.append(StartContainer(container, kind, self._next_attempt(container, after), after))

    def _held_back(self, container: Container, after: ContainerObservation) -> bool:
        entry = self.inputs.backoffs.get(container.name)
        finished_at = to_datetime(after.finished_at_ns)
        if entry is None or after.finished_at_ns == 0 or entry.is_stale(finished_at):
            return False
        until = finished_at + timedelta(seconds=entry.delay_s)
        if self.inputs.now >= until:
            return False
        meta = self.pod.metadata
        self.waiting[container.name] = Waiting(
            CRASH_LOOP,
            f"back-off {go_duration(entry.delay_s)} restarting failed container={container.name} "
            f"pod={meta.name}_{meta.namespace}({meta.uid})",
        )
        self._wake(until)
        return True

    def _next_attempt(self, container: Container, after: ContainerObservation | None) -> int:
        latest = after or self.observed.latest(container.name)
        if latest is not None:
            return latest.attempt + 1
        statuses = (
            *self.pod.status.containerStatuses,
            *self.pod.status.initContainerStatuses,
        )
        told = next((s for s in statuses if s.name == container.name and s.containerID), None)
        return told.restartCount + 1 if told is not None else 0

    def _wake(self, at: datetime) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)

    def _collect_dead(self) -> None:
        """Of each name the newest stays, and the one before it for `logs --previous`."""
        seen: dict[str, int] = {}
        for container in self.observed.containers:
            seen[container.name] = seen.get(container.name, 0) + 1
            if seen[container.name] > 2 and not container.is_alive:
                self.actions.append(RemoveContainer(container))


def _probe_grace(container: Container, *, started: bool) -> int | None:
    """The grace period that the failed probe itself gives."""
    probe = container.livenessProbe if started else container.startupProbe
    return probe.terminationGracePeriodSeconds if probe.HasField("terminationGracePeriodSeconds") else None


def to_datetime(nanoseconds: int) -> datetime:
    """The UTC time of nanoseconds since the epoch, cut to microseconds."""
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)


def go_duration(seconds: float) -> str:
    """A whole number of seconds as Go prints a duration: 10s, 2m40s, 5m0s."""
    whole = int(seconds)
    return f"{whole // 60}m{whole % 60}s" if whole >= 60 else f"{whole}s"


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
