"""The quality-of-service class of a pod, made of its requests and limits."""

from __future__ import annotations

from typing import Any

from tiphys_apimachinery.quantity import Quantity

GUARANTEED = "Guaranteed"
BURSTABLE = "Burstable"
BEST_EFFORT = "BestEffort"
_COMPUTE = ("cpu", "memory")


def qos_class(pod: Any) -> str:
    """Guaranteed where every container limits cpu and memory and asks for as much; BestEffort where none says anything.

    Resources of the pod as a whole count instead of the containers' where they are given.
    Source: Kubernetes pkg/apis/core/helper/qos.
    """
    spec = pod.spec
    if spec.HasField("resources") and (spec.resources.requests or spec.resources.limits):
        parts = [spec.resources]
    else:
        parts = [container.resources for container in (*spec.containers, *spec.initContainers)]
    said_something = False
    guaranteed = True
    for resources in parts:
        requests, limits = _positive(resources.requests), _positive(resources.limits)
        said_something = said_something or bool(requests or limits)
        if any(name not in limits or requests.get(name, limits[name]) != limits[name] for name in _COMPUTE):
            guaranteed = False
    if not said_something:
        return BEST_EFFORT
    return GUARANTEED if guaranteed else BURSTABLE


def _positive(values: Any) -> dict[str, Quantity]:
    """The amounts of cpu and memory that are more than nothing."""
    found = {}
    for name in _COMPUTE:
        if name in values:
            amount = Quantity.parse(values[name].string)
            if amount:
                found[name] = amount
    return found
