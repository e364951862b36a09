"""The configuration of a container. Pure: volumes are in place, objects have been read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tiphys.api.core.v1.container_pb2 import Container
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_kubelet.runtime import labels
from tiphys_kubelet.runtime.expansion import expand
from tiphys_kubelet.runtime.resources import container_resources
from tiphys_kubelet.runtime.security import container_security


@dataclass(frozen=True, slots=True)
class ContainerSettings:
    """What the node adds to every container."""

    memory_capacity_bytes: int = 0
    # Without CAP_SYS_RESOURCE the kernel refuses to lower the score, and the container would not start.
    set_oom_score: bool = True


@dataclass(frozen=True, slots=True)
class ContainerParts:
    """What was prepared for this one container."""

    attempt: int
    image_ref: str
    env: Mapping[str, str]
    mounts: Sequence[cri.Mount]
    groups: Sequence[int] = ()
    devices: Sequence[cri.Device] = ()
    target_id: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    cdi_devices: Sequence[cri.CDIDevice] = ()


def container_config(
    pod: Pod, container: Container, parts: ContainerParts, settings: ContainerSettings
) -> cri.ContainerConfig:
    """What CreateContainer is asked for."""
    config = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=container.name, attempt=parts.attempt),
        image=cri.ImageSpec(image=parts.image_ref, user_specified_image=container.image),
        command=[expand(word, parts.env) for word in container.command],
        args=[expand(word, parts.env) for word in container.args],
        working_dir=container.workingDir,
        envs=[
            cri.KeyValue(key=name, value=value.encode("utf-8", "surrogateescape")) for name, value in parts.env.items()
        ],
        mounts=parts.mounts,
        devices=parts.devices,
        labels=labels.container_labels(pod, container),
        annotations=labels.container_annotations(pod, container, parts.attempt) | dict(parts.annotations),
        CDI_devices=parts.cdi_devices,
        log_path=log_path(container.name, parts.attempt),
        stdin=container.stdin,
        stdin_once=container.stdinOnce,
        tty=container.tty,
    )
    config.linux.resources.CopyFrom(
        container_resources(
            pod,
            container,
            memory_capacity_bytes=settings.memory_capacity_bytes,
            set_oom_score=settings.set_oom_score,
        )
    )
    config.linux.security_context.CopyFrom(
        container_security(pod, container, groups=parts.groups, target_id=parts.target_id)
    )
    return config


def log_path(container_name: str, attempt: int) -> str:
    """The log file of one run of a container, below the pod's log directory."""
    return f"{container_name}/{attempt}.log"
