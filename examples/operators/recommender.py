"""Vertical scaling: gives the pods of a Scaling the CPU and memory that they are seen to use, while they run.

    python -m examples.operators.recommender --kubeconfig admin.conf

Every few seconds it reads what the metrics API tells of the pods that a Scaling selects, and resizes those that have
much more or much less than they need through pods/resize. A pod that may use no more than it does is given twice as
much: what it would use can't be seen. Requests and limits keep their ratio, so that the quality class stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.errors import APIError, Conflict, Forbidden, Invalid, NotFound
from tiphys_apimachinery.meta import is_being_deleted
from tiphys_apimachinery.quantity import Format, Quantity
from tiphys_sdk.operators.app import Custom, Operator, RequeueAfter, Watch, Work

MI = 1024 * 1024
# What is given beyond the use that is seen, and from which difference on a change is worth it.
HEADROOM = 1.25
WORTH_IT = 0.2
# From this part of its limit on a container may be held back by it.
CAPPED = 0.9
_RESIZING = ("PodResizePending", "PodResizeInProgress")


@dataclass(frozen=True, slots=True)
class ScalingSpec:
    """Which pods, and the bounds of what each container is given: millis of CPU and MiB of memory."""

    match_labels: dict[str, str]
    least_cpu: int = field(default=10, metadata={"minimum": 1})
    most_cpu: int = 4000
    least_memory: int = field(default=16, metadata={"minimum": 1})
    most_memory: int = 4096
    every_s: int = field(default=15, metadata={"minimum": 1})


class Scaling(Custom[ScalingSpec], group="scaling.tiphys.dev"):
    """Pods that are resized to what they use."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The least and the most of a resource."""

    least: int
    most: int


def recommend(used: int, request: int, limit: int, bounds: Bounds) -> int:
    """The request that fits the use; the present one where a change is not worth it. 0 is no limit. Pure."""
    wanted = used * HEADROOM
    if limit and used >= CAPPED * limit:
        wanted = max(wanted, 2.0 * request)
    target = round(min(bounds.most, max(bounds.least, wanted)))
    return target if abs(target - request) > WORTH_IT * request else request


def wanted_resources(container: Any, used: Mapping[str, Any], spec: ScalingSpec) -> dict[str, Any]:
    """What a container's resources should become; empty where they are well. What is not requested stays so. Pure."""
    changes: dict[str, Any] = {}
    for name, bounds in (
        ("cpu", Bounds(spec.least_cpu, spec.most_cpu)),
        ("memory", Bounds(spec.least_memory * MI, spec.most_memory * MI)),
    ):
        request, limit = _figure(container.resources.requests, name), _figure(container.resources.limits, name)
        if not request or name not in used:
            continue
        target = recommend(_amount(name, used[name]), request, limit, bounds)
        if target == request:
            continue
        changes.setdefault("requests", {})[name] = _text(name, target)
        if limit:
            changes.setdefault("limits", {})[name] = _text(name, target * limit // request)
    return changes


def _figure(amounts: Any, name: str) -> int:
    return _amount(name, amounts[name].string) if name in amounts else 0


def _amount(name: str, text: str) -> int:
    quantity = Quantity.parse(text)
    return quantity.milli_value() if name == "cpu" else quantity.value()


def _text(name: str, figure: int) -> str:
    return str(Quantity.of_millis(figure) if name == "cpu" else Quantity.of(figure // MI * MI, Format.BINARY))


def _is_selected(pod: Pod, scaling: Scaling) -> bool:
    labels = scaling.spec.match_labels
    return pod.metadata.namespace == scaling.metadata.namespace and all(
        pod.metadata.labels.get(name) == value for name, value in labels.items()
    )


def _resizable(work: Work, scaling: Scaling) -> Iterator[Pod]:
    """The pods that run, and that are not being resized already."""
    for pod in work.list(Pod):
        busy = is_being_deleted(pod) or any(condition.type in _RESIZING for condition in pod.status.conditions)
        if _is_selected(pod, scaling) and pod.status.phase == "Running" and not busy:
            yield pod


operator = Operator("recommender")


# No change of a pod touches a Scaling: it looks by itself, every few seconds.
@operator.reconciles(Scaling, watches=(Watch(Pod, lambda _: ()),))
async def reconcile(scaling: Scaling, work: Work) -> RequeueAfter:
    """Resize the pods that are not well."""
    again = RequeueAfter(float(scaling.spec.every_s))
    if operator.rest is None:
        return again
    try:
        told = await operator.rest.get(f"/apis/metrics.k8s.io/v1beta1/namespaces/{scaling.metadata.namespace}/pods")
    except APIError as err:
        work.event("NoMetrics", f"the metrics API does not answer: {err.message}", warning=True)
        return again
    uses = {
        pod["metadata"]["name"]: {container["name"]: container["usage"] for container in pod["containers"]}
        for pod in told["items"]
    }
    resized = 0
    for pod in list(_resizable(work, scaling)):
        resized += await _resize(pod, uses.get(pod.metadata.name, {}), scaling, work)
    work.status(resized=int(scaling.status.get("resized", 0)) + resized)
    return again


async def _resize(pod: Pod, uses: Mapping[str, Mapping[str, Any]], scaling: Scaling, work: Work) -> bool:
    containers = []
    for container in pod.spec.containers:
        changes = wanted_resources(container, uses.get(container.name, {}), scaling.spec)
        if changes:
            containers.append({"name": container.name, "resources": changes})
    if not containers:
        return False
    meta = pod.metadata
    patch = {"metadata": {"uid": meta.uid, "resourceVersion": meta.resourceVersion}, "spec": {"containers": containers}}
    try:
        await work.client.patch(Pod, meta.name, meta.namespace, patch, type="strategic", subresource="resize")
    except (NotFound, Conflict):
        return False  # it went or changed meanwhile: the next round sees how it is
    except (Forbidden, Invalid) as err:
        work.event("CannotResize", f"pod {meta.name}: {err.message}", warning=True)
        return False
    work.event("Resized", f"pod {meta.name}: {containers}")
    return True


if __name__ == "__main__":
    raise SystemExit(operator.main())
