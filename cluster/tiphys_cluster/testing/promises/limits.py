"""Of bounds that users set: budgets, quotas, autoscalers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from tiphys.api.autoscaling.v2 import autoscaling_pb2
from tiphys.api.batch.v1 import batch_pb2
from tiphys.api.core.v1 import persistent_volume_claim_pb2, pod_pb2, resource_quota_pb2
from tiphys_apimachinery.labels import from_label_selector
from tiphys_apimachinery.meta import namespaced_name
from tiphys_cluster.testing.guard import Guard, was_evicted
from tiphys_cluster.testing.promises.pods import millis, requests_of
from tiphys_cluster.testing.world import is_active, is_ready

# What an object uses of a resource, in thousandths, by the name that quotas have for it.
_USES: Final[Mapping[str, tuple[type[Any], Callable[[Any], int]]]] = {
    "pods": (pod_pb2.Pod, lambda _: 1000),
    "requests.cpu": (pod_pb2.Pod, lambda pod: requests_of(pod)["cpu"]),
    "requests.memory": (pod_pb2.Pod, lambda pod: requests_of(pod)["memory"]),
    "persistentvolumeclaims": (persistent_volume_claim_pb2.PersistentVolumeClaim, lambda _: 1000),
    "requests.storage": (
        persistent_volume_claim_pb2.PersistentVolumeClaim,
        lambda claim: millis(claim.spec.resources.requests["storage"]),
    ),
    "count/jobs.batch": (batch_pb2.Job, lambda _: 1000),
}


def quota_holds(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """A namespace never has more than its quota says."""
    if before is not None:
        return
    for quota in guard.world.of(resource_quota_pb2.ResourceQuota).values():
        if quota.metadata.namespace != after.metadata.namespace:
            continue
        for name, most in quota.spec.hard.items():
            if name not in _USES or not isinstance(after, _USES[name][0]):
                continue
            kind, use = _USES[name]
            counted = (one for one in guard.world.of(kind).values() if _counts(one, after.metadata.namespace))
            used = sum(map(use, counted))
            if used > millis(most):
                yield f"{namespaced_name(quota)}: {used}m of {name}, allowed are {millis(most)}m"


def budget_is_kept(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """An eviction leaves as many healthy pods as the budget says, but for pods that were lost otherwise just now."""
    if before is None or not is_ready(before) or not was_evicted(before, after):
        return
    for budget in guard.budgets_of(before):
        chosen = from_label_selector(budget.spec.selector)
        left = sum(
            is_ready(pod)
            and pod.metadata.namespace == budget.metadata.namespace
            and chosen.matches(pod.metadata.labels)
            for pod in guard.world.of(pod_pb2.Pod).values()
        )
        exact = budget.spec.HasField("minAvailable") and not budget.spec.minAvailable.strVal
        least = budget.spec.minAvailable.intVal if exact else budget.status.desiredHealthy
        lost = len(guard.losses.get(budget.metadata.uid, ()))
        if left + lost < least:
            name = before.metadata.name
            yield f"{namespaced_name(budget)}: {left} healthy, {lost} lost, {least} must be, {name} evicted"


def autoscaler_keeps_its_bounds(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """An autoscaler wishes for no number outside its bounds."""
    if not isinstance(after, autoscaling_pb2.HorizontalPodAutoscaler):
        return
    wished, spec = after.status.desiredReplicas, after.spec
    is_seen = after.status.observedGeneration == after.metadata.generation
    if wished and is_seen and not spec.minReplicas <= wished <= spec.maxReplicas:
        yield f"{namespaced_name(after)} wishes for {wished}, bounds are {spec.minReplicas} and {spec.maxReplicas}"


def _counts(obj: Any, namespace: str) -> bool:
    if obj.metadata.namespace != namespace:
        return False
    # One that was to be gone by now, on a node that is not heard of, is not counted.
    return not isinstance(obj, pod_pb2.Pod) or is_active(obj)
