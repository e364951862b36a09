"""Pods and observations, made short."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_kubelet.observation import ContainerObservation, ContainerPhase, PodObservation, SandboxObservation
from tiphys_kubelet.pod_spec import find_container, spec_hash

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
CREATED, RUNNING, EXITED = ContainerPhase.CREATED, ContainerPhase.RUNNING, ContainerPhase.EXITED


def ns(seconds_ago: float = 0.0) -> int:
    """Nanoseconds since the epoch of a moment before NOW."""
    return int((NOW - timedelta(seconds=seconds_ago)).timestamp() * 1_000_000) * 1000


def make_pod(*containers: str, init: tuple[str, ...] = (), policy: str = "Always", **spec: Any) -> Pod:
    """A pod with these containers; an init container whose name ends with * is a sidecar."""
    pod = Pod()
    pod.metadata.name, pod.metadata.namespace, pod.metadata.uid = "web", "default", "uid-1"
    pod.metadata.generation = 1
    pod.spec.restartPolicy = policy
    for name in init:
        container = pod.spec.initContainers.add(name=name.rstrip("*"), image="busybox")
        if name.endswith("*"):
            container.restartPolicy = "Always"
    for name in containers or ("app",):
        pod.spec.containers.add(name=name, image="busybox")
    for name, value in spec.items():
        setattr(pod.spec, name, value)
    return pod


def box(*, ready: bool = True, attempt: int = 0, ip: str = "10.0.0.1", host: bool = False) -> SandboxObservation:
    """A sandbox; its id holds its attempt."""
    ips = (ip,) if ip else ()
    return SandboxObservation(f"box-{attempt}", attempt, ready, ns(60), ips, host)


def run(
    pod: Pod,
    name: str,
    phase: ContainerPhase,
    code: int = 0,
    *,
    attempt: int = 0,
    sandbox: int = 0,
    ended_ago: float = 0.0,
    ran_s: float = 5.0,
) -> ContainerObservation:
    """One run of a container."""
    ref = find_container(pod, name)
    assert ref is not None
    return ContainerObservation(
        id=f"{name}-{attempt}",
        name=name,
        attempt=attempt,
        sandbox_id=f"box-{sandbox}",
        phase=phase,
        created_at_ns=ns(ended_ago + ran_s),
        started_at_ns=0 if phase is CREATED else ns(ended_ago + ran_s),
        finished_at_ns=ns(ended_ago) if phase is EXITED else 0,
        exit_code=code,
        image="docker.io/library/busybox:latest",
        image_ref="sha256:1",
        spec_hash=spec_hash(ref.container),
    )


def seen(*parts: SandboxObservation | ContainerObservation) -> PodObservation:
    """An observation of these parts, newest first."""
    boxes = sorted((p for p in parts if isinstance(p, SandboxObservation)), key=lambda b: -b.attempt)
    runs = sorted((p for p in parts if isinstance(p, ContainerObservation)), key=lambda c: -c.attempt)
    return PodObservation("uid-1", "default", "web", tuple(boxes), tuple(runs))
