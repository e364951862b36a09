"""The status of a pod: spec, observation and earlier status in, PodStatus out. Pure.

Source: the documented meaning of phases, conditions and container states; reasons and messages are Kubernetes' own, as
users and tools look for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tiphys.api.core.v1.container_pb2 import (
    Container,
    ContainerState,
    ContainerStateTerminated,
    ContainerStatus,
    ResourceStatus,
)
from tiphys.api.core.v1.pod_pb2 import HostIP, Pod, PodCondition, PodIP, PodStatus
from tiphys.api.meta.v1.meta_pb2 import Time
from tiphys_kubelet.observation import ContainerObservation, ContainerPhase, PodObservation
from tiphys_kubelet.pod_spec import (
    ContainerKind,
    as_container,
    kind_of_init,
    qos_class,
    restart_policy,
)
from tiphys_kubelet.pod_state import ProbeVerdict, Waiting
from tiphys_kubelet.resizing.resizes import CONDITIONS
from tiphys_kubelet.runtime.limits import actual_resources

CONTAINER_CREATING = "ContainerCreating"
POD_INITIALIZING = "PodInitializing"
CONDITION_ORDER = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


@dataclass(frozen=True, slots=True)
class StatusInputs:
    """What a status is made of. `previous` is what was reported last, at first the API's own.

    `ended` says that nothing of the pod runs or will run again; `failed` overrides the phase with its reason.
    """

    pod: Pod
    observed: PodObservation
    previous: PodStatus
    now: datetime
    host_ips: Sequence[str] = ()
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    probes: Mapping[str, ProbeVerdict] = field(default_factory=dict)
    runtime_name: str = "containerd"
    ended: bool = False
    failed: Waiting | None = None
    devices: Mapping[str, Sequence[ResourceStatus]] = field(default_factory=dict)
    # PodResizePending and PodResizeInProgress, where they hold.
    resize: Sequence[PodCondition] = ()


def make_status(inputs: StatusInputs) -> PodStatus:
    """The status that should be reported now."""
    pod, previous = inputs.pod, inputs.previous
    status = PodStatus()
    builder = _Builder(inputs)
    status.initContainerStatuses.extend(builder.statuses(pod.spec.initContainers, init=True))
    status.containerStatuses.extend(builder.statuses(pod.spec.containers, init=False))
    status.ephemeralContainerStatuses.extend(
        builder.statuses([as_container(c) for c in pod.spec.ephemeralContainers], init=False)
    )
    status.phase = _phase(inputs, status)
    if inputs.failed is not None:
        status.reason, status.message = inputs.failed.reason, inputs.failed.message
    elif previous.phase == status.phase and previous.reason:
        status.reason, status.message = previous.reason, previous.message
    _set_addresses(inputs, status)
    status.qosClass = qos_class(pod)
    # Others write these down, and nobody else may take them away.
    status.resourceClaimStatuses.extend(pod.status.resourceClaimStatuses)
    if previous.HasField("startTime"):
        status.startTime.CopyFrom(previous.startTime)
    else:
        status.startTime.CopyFrom(to_time(inputs.now))
    if pod.metadata.generation:
        status.observedGeneration = pod.metadata.generation
    status.conditions.extend(_conditions(inputs, status))
    return status


def to_time(moment: datetime) -> Time:
    """A Time of whole seconds, as Kubernetes keeps them."""
    return Time(seconds=int(moment.timestamp()), nanos=0)


def _time_of_ns(nanoseconds: int) -> Time:
    return Time(seconds=nanoseconds // 1_000_000_000, nanos=0)


class _Builder:
    """Makes container statuses."""

    def __init__(self, inputs: StatusInputs) -> None:
        self.inputs = inputs
        old = inputs.previous
        self.old = {
            s.name: s for s in (*old.initContainerStatuses, *old.containerStatuses, *old.ephemeralContainerStatuses)
        }
        self.initialized = self._is_initialized()

    def _is_initialized(self) -> bool:
        pod, observed = self.inputs.pod, self.inputs.observed
        if not pod.spec.initContainers or any(observed.active(c.name) for c in pod.spec.containers):
            return True
        return all(
            (current := observed.active(c.name)) is not None
            and (
                (current.phase is ContainerPhase.EXITED and current.exit_code == 0)
                if kind_of_init(c) is ContainerKind.INIT
                else current.is_running
            )
            for c in pod.spec.initContainers
        )

    def statuses(self, containers: Iterable[Container], *, init: bool) -> list[ContainerStatus]:
        return [self._status(c, i, init=init) for i, c in enumerate(containers)]

    def _status(self, container: Container, index: int, *, init: bool) -> ContainerStatus:
        status = ContainerStatus(name=container.name, image=container.image, imageID="", ready=False, restartCount=0)
        status.started = False
        status.allocatedResourcesStatus.extend(self.inputs.devices.get(container.name, ()))
        for name, quantity in container.resources.requests.items():
            status.allocatedResources[name].CopyFrom(quantity)
        current = self.inputs.observed.latest(container.name)
        old = self.old.get(container.name)
        waiting = self.inputs.waiting.get(container.name)
        status.lastState.SetInParent()
        if current is None:
            self._never_seen(status, old, waiting, first=init and index == 0)
            return status
        self._identify(status, current)
        if current.is_running and current.limits is not None:
            status.resources.CopyFrom(actual_resources(container, current.limits))
        else:
            status.resources.CopyFrom(container.resources)
        state = _state(current, self.inputs.runtime_name)
        before = self.inputs.observed.previous(container.name)
        if before is not None and before.phase is ContainerPhase.EXITED:
            status.lastState.terminated.CopyFrom(_terminated(before, self.inputs.runtime_name))
        elif old is not None and old.lastState.HasField("terminated"):
            status.lastState.CopyFrom(old.lastState)
        if waiting is not None and not current.is_running:
            if state.HasField("terminated"):
                status.lastState.CopyFrom(state)
            status.state.waiting.reason, status.state.waiting.message = waiting.reason, waiting.message
        elif self.inputs.ended and current.phase is not ContainerPhase.EXITED:
            status.state.terminated.CopyFrom(_lost())
        else:
            status.state.CopyFrom(state)
        self._readiness(status, container, current, init=init)
        return status

    def _never_seen(
        self, status: ContainerStatus, old: ContainerStatus | None, waiting: Waiting | None, *, first: bool
    ) -> None:
        """The runtime has nothing of it: never made, or gone already."""
        blocked = not self.initialized and not first
        if old is not None and old.containerID:
            status.restartCount = old.restartCount
            status.image, status.imageID, status.containerID = old.image, old.imageID, old.containerID
            status.lastState.CopyFrom(old.lastState)
        if waiting is not None:
            status.state.waiting.reason, status.state.waiting.message = waiting.reason, waiting.message
        elif old is not None and old.state.HasField("terminated"):
            status.state.CopyFrom(old.state)
            status.ready = old.ready
        elif self.inputs.ended and not (blocked and _was_initializing(old)):
            status.state.terminated.CopyFrom(_lost())
        elif old is not None and old.state.HasField("running"):
            status.lastState.terminated.CopyFrom(_lost())
            status.state.waiting.reason = CONTAINER_CREATING
        else:
            status.state.waiting.reason = POD_INITIALIZING if blocked else CONTAINER_CREATING

    def _identify(self, status: ContainerStatus, current: ContainerObservation) -> None:
        status.restartCount = current.attempt
        status.containerID = f"{self.inputs.runtime_name}://{current.id}"
        status.imageID = current.image_ref
        if current.image and not current.image.startswith("sha256:"):
            status.image = current.image

    def _readiness(
        self, status: ContainerStatus, container: Container, current: ContainerObservation, *, init: bool
    ) -> None:
        verdict = self.inputs.probes.get(current.id, _default_verdict(container))
        if init and kind_of_init(container) is ContainerKind.INIT:
            status.ready = current.phase is ContainerPhase.EXITED and current.exit_code == 0
            return
        if current.is_running and status.state.HasField("running"):
            status.started = verdict.started
            status.ready = verdict.started and verdict.ready


def _default_verdict(container: Container) -> ProbeVerdict:
    """Before the first probe has run: not ready if there is a probe that must say so first."""
    return ProbeVerdict(started=not container.HasField("startupProbe"), ready=not container.HasField("readinessProbe"))


def _state(current: ContainerObservation, runtime_name: str) -> ContainerState:
    state = ContainerState()
    if current.is_running:
        state.running.startedAt.CopyFrom(_time_of_ns(current.started_at_ns))
    elif current.phase is ContainerPhase.EXITED:
        state.terminated.CopyFrom(_terminated(current, runtime_name))
    else:
        state.waiting.reason = CONTAINER_CREATING
    return state


def _terminated(current: ContainerObservation, runtime_name: str) -> ContainerStateTerminated:
    ended = ContainerStateTerminated(
        exitCode=current.exit_code,
        reason=current.reason or ("Completed" if current.exit_code == 0 else "Error"),
        containerID=f"{runtime_name}://{current.id}",
    )
    if current.message:
        ended.message = current.message
    # A container that never started has no start of its own; Kubernetes shows the epoch, which misleads nobody.
    ended.startedAt.CopyFrom(_time_of_ns(current.started_at_ns))
    ended.finishedAt.CopyFrom(_time_of_ns(current.finished_at_ns))
    return ended


def _lost() -> ContainerStateTerminated:
    return ContainerStateTerminated(
        exitCode=137,
        reason="ContainerStatusUnknown",
        message="The container could not be located when the pod was terminated",
    )


def _was_initializing(old: ContainerStatus | None) -> bool:
    """It never had its turn, so that nothing of it can be lost."""
    return old is None or old.state.waiting.reason == POD_INITIALIZING


def _phase(inputs: StatusInputs, status: PodStatus) -> str:
    if inputs.previous.phase in ("Failed", "Succeeded"):
        return inputs.previous.phase
    phase = "Failed" if inputs.failed is not None else _running_phase(inputs, status)
    if inputs.ended and phase not in ("Failed", "Succeeded"):
        return "Failed"
    if phase in ("Failed", "Succeeded") and any(c.is_alive for c in inputs.observed.containers):
        # Whoever waits for the end must not see it before every container, sidecars too, has ended.
        return inputs.previous.phase or "Running"
    return phase


def _running_phase(inputs: StatusInputs, status: PodStatus) -> str:
    policy = restart_policy(inputs.pod)
    pending_init = False
    for container, told in zip(inputs.pod.spec.initContainers, status.initContainerStatuses, strict=True):
        if kind_of_init(container) is ContainerKind.SIDECAR:
            pending_init = pending_init or not (told.started or _has_ended(told))
            continue
        code = _exit_code(told)
        if code is None:
            pending_init = True
        elif code != 0:
            if policy == "Never":
                return "Failed"
            pending_init = True
    running = [s for s in status.containerStatuses if s.state.HasField("running")]
    ended = [s for s in status.containerStatuses if not s.state.HasField("running") and _exit_code(s) is not None]
    waiting = len(status.containerStatuses) - len(running) - len(ended)
    if pending_init and not running and not ended:
        return "Pending"
    if waiting:
        return "Pending"
    if running:
        return "Running"
    if not ended:
        return "Pending"
    if policy == "Always" and not inputs.ended:
        return "Running"
    if all(_exit_code(s) == 0 for s in ended):
        return "Succeeded"
    return "Failed" if policy == "Never" or inputs.ended else "Running"


def _has_ended(status: ContainerStatus) -> bool:
    return _exit_code(status) is not None


def _exit_code(status: ContainerStatus) -> int | None:
    """How it ended last, None when it never has."""
    if status.state.HasField("terminated"):
        return status.state.terminated.exitCode
    if status.state.HasField("waiting") and status.lastState.HasField("terminated"):
        return status.lastState.terminated.exitCode
    return None


def _set_addresses(inputs: StatusInputs, status: PodStatus) -> None:
    if inputs.host_ips:
        status.hostIP = inputs.host_ips[0]
        status.hostIPs.extend([HostIP(ip=ip) for ip in inputs.host_ips])
    if inputs.pod.spec.hostNetwork:
        ips: Sequence[str] = inputs.host_ips
    else:
        sandbox = inputs.observed.sandbox
        # Without a sandbox that runs the last address stays, so that those who are told of the end know whose it is.
        ips = sandbox.ips if sandbox is not None and sandbox.ips else [told.ip for told in inputs.previous.podIPs]
    if ips:
        status.podIP = ips[0]
        status.podIPs.extend([PodIP(ip=ip) for ip in ips])


def _conditions(inputs: StatusInputs, status: PodStatus) -> list[PodCondition]:
    """Ours in their order, then those of others as they are."""
    made = {
        "PodReadyToStartContainers": _sandbox_condition(inputs),
        "Initialized": _initialized_condition(inputs, status),
        "ContainersReady": _containers_ready(inputs, status),
        "PodScheduled": PodCondition(type="PodScheduled", status="True"),
    }
    made["Ready"] = _ready_condition(inputs, made["ContainersReady"])
    conditions = [_stamped(made[name], inputs) for name in CONDITION_ORDER]
    others = (c for c in inputs.pod.status.conditions if c.type not in made and c.type not in CONDITIONS)
    return [*conditions, *(_resize_condition(told, inputs) for told in inputs.resize), *others]


def _resize_condition(told: PodCondition, inputs: StatusInputs) -> PodCondition:
    """It holds for a generation of its own."""
    generation = told.observedGeneration
    condition = PodCondition()
    condition.CopyFrom(told)
    _stamped(condition, inputs).observedGeneration = generation
    return condition


def _stamped(condition: PodCondition, inputs: StatusInputs) -> PodCondition:
    """Keeps the time of the last change of the condition's status."""
    old = next((c for c in inputs.previous.conditions if c.type == condition.type), None)
    if old is not None and old.status == condition.status and old.HasField("lastTransitionTime"):
        condition.lastTransitionTime.CopyFrom(old.lastTransitionTime)
    else:
        condition.lastTransitionTime.CopyFrom(to_time(inputs.now))
    if inputs.pod.metadata.generation:
        condition.observedGeneration = inputs.pod.metadata.generation
    return condition


def _condition(kind: str, ok: bool, reason: str = "", message: str = "") -> PodCondition:
    condition = PodCondition(type=kind, status="True" if ok else "False")
    if reason:
        condition.reason = reason
    if message:
        condition.message = message
    return condition


def _sandbox_condition(inputs: StatusInputs) -> PodCondition:
    sandbox = inputs.observed.sandbox
    has_network = sandbox is not None and (bool(sandbox.ips) or inputs.pod.spec.hostNetwork)
    return _condition("PodReadyToStartContainers", sandbox is not None and sandbox.ready and has_network)


def _initialized_condition(inputs: StatusInputs, status: PodStatus) -> PodCondition:
    if status.phase == "Succeeded":
        return _condition("Initialized", True, "PodCompleted")
    if any(s.started or _has_ended(s) for s in status.containerStatuses):
        return _condition("Initialized", True)
    pairs = zip(inputs.pod.spec.initContainers, status.initContainerStatuses, strict=True)
    incomplete = [s.name for c, s in pairs if not (s.started if kind_of_init(c) is ContainerKind.SIDECAR else s.ready)]
    if not incomplete:
        return _condition("Initialized", True)
    message = f"containers with incomplete status: {_names(incomplete)}"
    return _condition("Initialized", False, "ContainersNotInitialized", message)


def _containers_ready(inputs: StatusInputs, status: PodStatus) -> PodCondition:
    ended = _ended_condition("ContainersReady", status.phase)
    if ended is not None:
        return ended
    sidecars = [
        s
        for c, s in zip(inputs.pod.spec.initContainers, status.initContainerStatuses, strict=True)
        if kind_of_init(c) is ContainerKind.SIDECAR
    ]
    unready = [s.name for s in (*sidecars, *status.containerStatuses) if not s.ready]
    if not unready:
        return _condition("ContainersReady", True)
    message = f"containers with unready status: {_names(unready)}"
    return _condition("ContainersReady", False, "ContainersNotReady", message)


def _ready_condition(inputs: StatusInputs, containers_ready: PodCondition) -> PodCondition:
    if containers_ready.status != "True":
        return _condition("Ready", False, containers_ready.reason, containers_ready.message)
    told = {c.type: c.status for c in inputs.pod.status.conditions}
    closed = [gate.conditionType for gate in inputs.pod.spec.readinessGates if told.get(gate.conditionType) != "True"]
    if not closed:
        return _condition("Ready", True)
    messages = [
        f'corresponding condition of pod readiness gate "{name}" '
        + ("does not exist." if name not in told else 'is "False".')
        for name in closed
    ]
    return _condition("Ready", False, "ReadinessGatesNotReady", ", ".join(messages))


def _ended_condition(kind: str, phase: str) -> PodCondition | None:
    if phase == "Succeeded":
        return _condition(kind, False, "PodCompleted")
    if phase == "Failed":
        return _condition(kind, False, "PodFailed")
    return None


def _names(names: Sequence[str]) -> str:
    return f"[{' '.join(names)}]"
