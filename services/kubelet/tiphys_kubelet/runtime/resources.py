"""From requests and limits to what the kernel is told. Pure.

Source: the documented mapping of CPU to shares and quota, and of quality-of-service classes to oom_score_adj.
"""

from __future__ import annotations

from collections.abc import Mapping

from tiphys.api.core.v1.container_pb2 import Container
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.resource.quantity_pb2 import Quantity as QuantityMessage
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_apimachinery.quantity import Quantity
from tiphys_kubelet.pod_spec import qos_class

MIN_SHARES = 2
MAX_SHARES = 262144
SHARES_PER_CPU = 1024
QUOTA_PERIOD_US = 100_000
MIN_QUOTA_US = 1000
_CRITICAL_PRIORITY = 2_000_000_000


def amount_of(amounts: Mapping[str, QuantityMessage], name: str) -> Quantity | None:
    """One amount of a resource list; None where it is not named."""
    return Quantity.parse(amounts[name].string) if name in amounts and amounts[name].string else None


def cpu_shares(cpu_millis: int) -> int:
    """CPU shares of a request; without one the least there is."""
    if cpu_millis <= 0:
        return MIN_SHARES
    return max(MIN_SHARES, min(MAX_SHARES, cpu_millis * SHARES_PER_CPU // 1000))


def cpu_quota(cpu_millis: int) -> int:
    """CPU time in microseconds per period of a limit; 0 means no limit."""
    return max(MIN_QUOTA_US, cpu_millis * QUOTA_PERIOD_US // 1000) if cpu_millis > 0 else 0


def oom_score_adj(pod: Pod, container: Container, memory_capacity_bytes: int) -> int:
    """How willingly the kernel kills the container when memory runs out: -997 to 1000."""
    if pod.spec.priority >= _CRITICAL_PRIORITY:
        return -997
    quality = qos_class(pod)
    if quality == "Guaranteed":
        return -997
    if quality == "BestEffort" or memory_capacity_bytes <= 0:
        return 1000
    request = amount_of(container.resources.requests, "memory")
    share = 1000 - (1000 * (request.value() if request else 0)) // memory_capacity_bytes
    # Below 3 would be as safe as Guaranteed, and 1000 is for BestEffort.
    return min(999, max(3, share))


def container_resources(
    pod: Pod, container: Container, *, memory_capacity_bytes: int, set_oom_score: bool
) -> cri.LinuxContainerResources:
    """What the container's cgroup is given."""
    resources = cri.LinuxContainerResources()
    request = amount_of(container.resources.requests, "cpu")
    limit = amount_of(container.resources.limits, "cpu")
    wanted = request if request is not None else limit
    resources.cpu_shares = cpu_shares(wanted.milli_value() if wanted else 0)
    if limit is not None:
        resources.cpu_quota = cpu_quota(limit.milli_value())
        resources.cpu_period = QUOTA_PERIOD_US
    memory = amount_of(container.resources.limits, "memory")
    if memory is not None:
        resources.memory_limit_in_bytes = memory.value()
        # Equal limits of memory and memory with swap mean: no swap.
        resources.memory_swap_limit_in_bytes = memory.value()
    for name, quantity in container.resources.limits.items():
        if name.startswith("hugepages-") and quantity.string:
            size = name.removeprefix("hugepages-").replace("Mi", "MB").replace("Gi", "GB")
            resources.hugepage_limits.add(page_size=size, limit=Quantity.parse(quantity.string).value())
    if set_oom_score:
        resources.oom_score_adj = oom_score_adj(pod, container, memory_capacity_bytes)
    return resources
