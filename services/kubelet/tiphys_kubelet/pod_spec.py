"""Questions that many rooms ask of a pod's spec."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from tiphys.api.core.v1.container_pb2 import Container, EphemeralContainer
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.quantity import Quantity

DEFAULT_GRACE_S = 30
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
SOURCE_ANNOTATION = "kubernetes.io/config.source"


class ContainerKind(Enum):
    """Which of the three lists of a pod a container stands in; SIDECAR is an init container that keeps running."""

    INIT = "init"
    SIDECAR = "sidecar"
    REGULAR = "regular"
    EPHEMERAL = "ephemeral"


@dataclass(frozen=True, slots=True)
class ContainerRef:
    """A container of a pod with its kind."""

    container: Container
    kind: ContainerKind

    @property
    def name(self) -> str:
        """The container's name, unique in the pod."""
        return self.container.name


def kind_of_init(container: Container) -> ContainerKind:
    """SIDECAR for restartPolicy Always, else INIT."""
    return ContainerKind.SIDECAR if container.restartPolicy == "Always" else ContainerKind.INIT


def as_container(ephemeral: EphemeralContainer) -> Container:
    """An ephemeral container in the form of an ordinary one; their fields have the same numbers."""
    return Container.FromString(ephemeral.ephemeralContainerCommon.SerializeToString())


def all_containers(pod: Pod) -> Iterator[ContainerRef]:
    """Every container: init, regular, ephemeral, each list in order."""
    for container in pod.spec.initContainers:
        yield ContainerRef(container, kind_of_init(container))
    for container in pod.spec.containers:
        yield ContainerRef(container, ContainerKind.REGULAR)
    for ephemeral in pod.spec.ephemeralContainers:
        yield ContainerRef(as_container(ephemeral), ContainerKind.EPHEMERAL)


def find_container(pod: Pod, name: str) -> ContainerRef | None:
    """The container of this name."""
    return next((ref for ref in all_containers(pod) if ref.name == name), None)


def spec_hash(container: Container) -> str:
    """Changes when the container must be made anew: only the image may change in a live pod."""
    return hashlib.sha256(f"{container.name}\0{container.image}".encode()).hexdigest()[:16]


def restart_policy(pod: Pod) -> str:
    """Always, OnFailure or Never."""
    return pod.spec.restartPolicy or "Always"


def pod_key(pod: Pod) -> str:
    """namespace/name."""
    return f"{pod.metadata.namespace}/{pod.metadata.name}"


def is_static(pod: Pod) -> bool:
    """The pod came from a manifest on this node; the API only mirrors it."""
    return pod.metadata.annotations.get(SOURCE_ANNOTATION, "api") != "api"


def qos_class(pod: Pod) -> str:
    """Guaranteed, Burstable or BestEffort, from the requests and limits of all containers.

    Source: the documented rules; only cpu and memory count, and a request that is not set equals its limit.
    """
    if pod.status.qosClass:
        return pod.status.qosClass
    any_set, guaranteed = False, True
    for container in (*pod.spec.initContainers, *pod.spec.containers):
        for name in ("cpu", "memory"):
            limit = _amount(container, name, limits=True)
            request = _amount(container, name, limits=False)
            if limit or request:
                any_set = True
            if not limit or (request and request != limit):
                guaranteed = False
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _amount(container: Container, name: str, *, limits: bool) -> Quantity | None:
    amounts = container.resources.limits if limits else container.resources.requests
    if name not in amounts or not amounts[name].string:
        return None
    amount = Quantity.parse(amounts[name].string)
    return amount if amount.milli_value() else None
