"""In which order the kernel is told of a resize. Pure.

A pod's own group grows before its containers' and shrinks after them, so that no container is ever promised what its
pod does not have. Memory comes first, then CPU. A container that must restart for it is stopped before all else, and
started with what is then set aside for it.
Source: Kubernetes pkg/kubelet/kuberuntime (doPodResizeAction).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tiphys.api.core.v1.container_pb2 import Container
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_kubelet.observation import ContainerObservation, PodObservation
from tiphys_kubelet.runtime.limits import CPU, MEMORY, Limits, container_limits, pod_limits


@dataclass(frozen=True, slots=True)
class StopForResize:
    """Stop a container whose policy is to restart; it is started again with its new resources."""

    target: ContainerObservation


@dataclass(frozen=True, slots=True)
class SetPodLimits:
    """Write the limits of the pod's own group."""

    limits: Limits


@dataclass(frozen=True, slots=True)
class UpdateContainer:
    """Tell the runtime one resource of a container."""

    target: ContainerObservation
    resource: str
    limits: Limits
    # What it has now.
    before: Limits

    @property
    def lowers_memory(self) -> bool:
        """Less memory than now, so that what is in use may not fit any more."""
        wanted, now = self.limits.memory_bytes, self.before.memory_bytes
        return self.resource == MEMORY and wanted > 0 and (now == 0 or wanted < now)


Step = StopForResize | SetPodLimits | UpdateContainer


def plan_steps(pod: Pod, observed: PodObservation, group: Limits | None) -> tuple[Step, ...]:
    """What is left to do until the pod has what is set aside for it; pod is as allocated.

    group is what the pod's own group has, None where we do not keep one.
    """
    updates: list[UpdateContainer] = []
    stops: list[Step] = []
    for container, current in running(pod, observed):
        if current.limits is None:
            continue
        wanted = container_limits(container)
        changed = [name for name in (MEMORY, CPU) if current.limits.differs(name, wanted)]
        if any(_restarts(container, name) for name in changed):
            stops.append(StopForResize(current))
        else:
            updates += [UpdateContainer(current, name, wanted, current.limits) for name in changed]
    steps = stops
    wanted_group = pod_limits(pod)
    for resource in (MEMORY, CPU):
        before, group = group, group.with_resource(resource, wanted_group) if group is not None else None
        grows = before is not None and group is not None and _grows(resource, before, group)
        if group is not None and grows and before != group:
            steps.append(SetPodLimits(group))
        steps += [update for update in updates if update.resource == resource]
        if group is not None and not grows and before != group:
            steps.append(SetPodLimits(group))
    return tuple(steps)


def running(pod: Pod, observed: PodObservation) -> Iterator[tuple[Container, ContainerObservation]]:
    """The containers that can be resized and run, sidecars first."""
    sidecars = (c for c in pod.spec.initContainers if c.restartPolicy == "Always")
    for container in (*sidecars, *pod.spec.containers):
        current = observed.active(container.name)
        if current is not None and current.is_running:
            yield container, current


def _restarts(container: Container, resource: str) -> bool:
    return any(p.resourceName == resource and p.restartPolicy == "RestartContainer" for p in container.resizePolicy)


def _grows(resource: str, before: Limits, after: Limits) -> bool:
    """Whether the pod's group gets more; no limit is more than any."""
    if resource == MEMORY:
        return _is_more(after.memory_bytes, before.memory_bytes)
    if after.cpu_quota != before.cpu_quota:
        return _is_more(after.cpu_quota, before.cpu_quota)
    return after.cpu_shares > before.cpu_shares


def _is_more(after: int, before: int) -> bool:
    return before != 0 and (after == 0 or after > before)
