"""What a container, or a pod as a whole, may use as the kernel counts it; and back to what the API calls it. Pure.

Source: Kubernetes pkg/kubelet/cm (ResourceConfigForPod) and kuberuntime's reading of CRI's ContainerResources.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tiphys.api.core.v1.container_pb2 import Container, ResourceRequirements
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_apimachinery.pod_resources import pod_amounts
from tiphys_apimachinery.quantity import Format, Quantity
from tiphys_kubelet.runtime.resources import (
    MIN_QUOTA_US,
    MIN_SHARES,
    QUOTA_PERIOD_US,
    SHARES_PER_CPU,
    amount_of,
    cpu_quota,
    cpu_shares,
)

# The kernel keeps memory limits in whole pages.
_PAGE = 4096
CPU, MEMORY = "cpu", "memory"


@dataclass(frozen=True, slots=True)
class Limits:
    """Shares, microseconds of CPU time in each period of 100 ms, and bytes; 0 where nothing is limited."""

    cpu_shares: int = MIN_SHARES
    cpu_quota: int = 0
    memory_bytes: int = 0

    def with_resource(self, resource: str, other: Limits) -> Limits:
        """These, but one resource as in other."""
        if resource == MEMORY:
            return replace(self, memory_bytes=other.memory_bytes)
        return replace(self, cpu_shares=other.cpu_shares, cpu_quota=other.cpu_quota)

    def differs(self, resource: str, other: Limits) -> bool:
        """Whether a resource is other than in other."""
        return self.with_resource(resource, other) != self

    def for_cri(self, resource: str) -> cri.LinuxContainerResources:
        """What a runtime is told to change one resource."""
        made = cri.LinuxContainerResources()
        if resource == MEMORY:
            # Without a limit nothing would say so but -1, and equal limits with and without swap mean: no swap.
            made.memory_limit_in_bytes = made.memory_swap_limit_in_bytes = self.memory_bytes or -1
            return made
        made.cpu_shares, made.cpu_period = self.cpu_shares, QUOTA_PERIOD_US
        made.cpu_quota = self.cpu_quota or -1
        return made


def container_limits(container: Container) -> Limits:
    """What a container's resources come to."""
    resources = container.resources
    limit = amount_of(resources.limits, CPU)
    request = amount_of(resources.requests, CPU) or limit
    memory = amount_of(resources.limits, MEMORY)
    return Limits(
        cpu_shares(request.milli_value() if request else 0),
        cpu_quota(limit.milli_value()) if limit is not None else 0,
        _pages(memory.value()) if memory is not None else 0,
    )


def pod_limits(pod: Pod) -> Limits:
    """What the group of a whole pod may use: a limit only where every container has one."""
    spec = pod.spec
    requests, limits = pod_amounts(spec, "requests"), pod_amounts(spec, "limits")
    containers = (*spec.containers, *spec.initContainers)

    def limit_of(name: str) -> Quantity | None:
        declared = spec.resources.limits if spec.HasField("resources") else {}
        everyone = all(name in container.resources.limits for container in containers)
        return limits.get(name) if everyone or name in declared else None

    cpu, memory, request = limit_of(CPU), limit_of(MEMORY), requests.get(CPU)
    return Limits(
        cpu_shares(request.milli_value() if request else 0),
        cpu_quota(cpu.milli_value()) if cpu else 0,
        _pages(memory.value()) if memory else 0,
    )


def _pages(size: int) -> int:
    return size // _PAGE * _PAGE


def from_cri(told: cri.ContainerStatus) -> Limits | None:
    """What a runtime says that a container has; None where it does not say."""
    if not told.HasField("resources") or not told.resources.HasField("linux"):
        return None
    linux = told.resources.linux
    quota = linux.cpu_quota
    if quota > 0 and linux.cpu_period not in (0, QUOTA_PERIOD_US):
        quota = quota * QUOTA_PERIOD_US // linux.cpu_period
    return Limits(linux.cpu_shares or MIN_SHARES, max(0, quota), _pages(max(0, linux.memory_limit_in_bytes)))


def actual_resources(container: Container, actual: Limits) -> ResourceRequirements:
    """What a running container has, in the words of its allocation where that comes to the same."""
    made = ResourceRequirements()
    made.CopyFrom(container.resources)
    wanted = container_limits(container)
    for values, name, text in _differences(actual, wanted):
        target = made.limits if values == "limits" else made.requests
        if text:
            target[name].string = text
        elif name in target:
            del target[name]
    return made


def _differences(actual: Limits, wanted: Limits) -> Iterator[tuple[str, str, str]]:
    """Where a container has something else than its allocation: requests or limits, the resource, the amount."""
    if actual.cpu_shares != wanted.cpu_shares:
        millis = -(-actual.cpu_shares * 1000 // SHARES_PER_CPU) if actual.cpu_shares > MIN_SHARES else 0
        yield "requests", CPU, f"{millis}m" if millis else ""
    if actual.cpu_quota != wanted.cpu_quota:
        millis = actual.cpu_quota * 1000 // QUOTA_PERIOD_US if actual.cpu_quota > MIN_QUOTA_US else 0
        yield "limits", CPU, f"{millis}m" if millis else ""
    if actual.memory_bytes != wanted.memory_bytes:
        yield "limits", MEMORY, str(Quantity.of(actual.memory_bytes, Format.BINARY)) if actual.memory_bytes else ""


def same_amounts(one: Mapping[str, Quantity], other: Mapping[str, Quantity]) -> bool:
    """Whether two lists of amounts ask for the same, whatever the words."""
    return one.keys() == other.keys() and all(one[name] == other[name] for name in one)
