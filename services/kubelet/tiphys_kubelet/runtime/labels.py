"""What is written on sandboxes and containers, so that everything can be rebuilt from the runtime after a crash.

The keys are those of Kubernetes: tools like crictl show pods by them.
"""

from __future__ import annotations

from tiphys.api.core.v1.container_pb2 import Container
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_kubelet.observation import ContainerObservation, ContainerPhase, SandboxObservation
from tiphys_kubelet.pod_spec import spec_hash
from tiphys_kubelet.runtime.limits import Limits

POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
CONTAINER_HASH = "io.kubernetes.container.hash"
RESTART_COUNT = "io.kubernetes.container.restartCount"
MESSAGE_PATH = "io.kubernetes.container.terminationMessagePath"
MESSAGE_POLICY = "io.kubernetes.container.terminationMessagePolicy"
POD_GRACE = "io.kubernetes.pod.terminationGracePeriod"

_PHASES: dict[int, ContainerPhase] = {
    cri.CONTAINER_CREATED: ContainerPhase.CREATED,
    cri.CONTAINER_RUNNING: ContainerPhase.RUNNING,
    cri.CONTAINER_EXITED: ContainerPhase.EXITED,
    cri.CONTAINER_UNKNOWN: ContainerPhase.UNKNOWN,
}


def pod_labels(pod: Pod) -> dict[str, str]:
    """Labels of a sandbox: the pod's own, and who it is."""
    meta = pod.metadata
    return {**meta.labels, POD_NAME: meta.name, POD_NAMESPACE: meta.namespace, POD_UID: meta.uid}


def container_labels(pod: Pod, container: Container) -> dict[str, str]:
    """Labels of a container."""
    meta = pod.metadata
    return {
        POD_NAME: meta.name,
        POD_NAMESPACE: meta.namespace,
        POD_UID: meta.uid,
        CONTAINER_NAME: container.name,
    }


def container_annotations(pod: Pod, container: Container, attempt: int) -> dict[str, str]:
    """Annotations of a container: what we need to know of it when the pod's object is gone."""
    annotations = {
        CONTAINER_HASH: spec_hash(container),
        RESTART_COUNT: str(attempt),
        MESSAGE_PATH: container.terminationMessagePath or "/dev/termination-log",
        MESSAGE_POLICY: container.terminationMessagePolicy or "File",
    }
    if pod.spec.HasField("terminationGracePeriodSeconds"):
        annotations[POD_GRACE] = str(pod.spec.terminationGracePeriodSeconds)
    return annotations


def pod_from_sandbox(sandbox: cri.PodSandbox) -> Pod:
    """As much of a pod as its sandbox tells; enough to end it."""
    pod = Pod()
    pod.metadata.name = sandbox.metadata.name
    pod.metadata.namespace = sandbox.metadata.namespace
    pod.metadata.uid = sandbox.metadata.uid
    pod.spec.terminationGracePeriodSeconds = 1
    return pod


def observe_sandbox(status: cri.PodSandboxStatus) -> SandboxObservation:
    """A sandbox as a value."""
    network = status.network
    ips = (network.ip, *(more.ip for more in network.additional_ips)) if network.ip else ()
    return SandboxObservation(
        id=status.id,
        attempt=status.metadata.attempt,
        ready=status.state == cri.SANDBOX_READY,
        created_at_ns=status.created_at,
        ips=ips,
        host_network=status.linux.namespaces.options.network == cri.NODE,
    )


def observe_container(
    status: cri.ContainerStatus, sandbox_id: str, message: str, limits: Limits | None = None
) -> ContainerObservation:
    """A container as a value; `message` is what it left as its termination message."""
    return ContainerObservation(
        id=status.id,
        name=status.metadata.name,
        attempt=status.metadata.attempt,
        sandbox_id=sandbox_id,
        phase=_PHASES.get(status.state, ContainerPhase.UNKNOWN),
        created_at_ns=status.created_at,
        started_at_ns=status.started_at,
        finished_at_ns=status.finished_at,
        exit_code=status.exit_code,
        reason=status.reason,
        message=message or status.message,
        image=status.image.image,
        image_ref=status.image_ref,
        image_id=status.image_id,
        spec_hash=status.annotations.get(CONTAINER_HASH, ""),
        log_path=status.log_path,
        limits=limits if status.state == cri.CONTAINER_RUNNING else None,
    )


def phase_of(state: int) -> ContainerPhase:
    """A container's phase in a list."""
    return _PHASES.get(state, ContainerPhase.UNKNOWN)


def log_directory(root: str, pod: Pod) -> str:
    """Where the log files of a pod lie; the path is an interface, log collectors read it."""
    meta = pod.metadata
    return f"{root}/{meta.namespace}_{meta.name}_{meta.uid}"
