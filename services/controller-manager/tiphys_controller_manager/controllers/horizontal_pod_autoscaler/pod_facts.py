"""What the autoscaler must know of a pod. Pure."""

from __future__ import annotations

from typing import Any

from tiphys_apimachinery.meta import find_condition, is_being_deleted
from tiphys_apimachinery.quantity import Quantity
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.readings import PodFacts
from tiphys_controller_manager.pods import seconds


def pod_facts(pod: Any) -> PodFacts:
    """The facts of a pod."""
    ready = find_condition(pod.status.conditions, "Ready")
    by_container = {one.name: _requests(one.resources) for one in _running(pod)}
    requests: dict[str, int] = {}
    for amounts in by_container.values():
        for name, amount in amounts.items():
            requests[name] = requests.get(name, 0) + amount
    missing = {
        resource: container
        for resource in requests
        for container, amounts in by_container.items()
        if resource not in amounts
    }
    if pod.spec.HasField("resources"):
        # What the pod asks for as a whole counts instead of what its containers do.
        whole = _requests(pod.spec.resources)
        requests |= whole
        missing = {name: container for name, container in missing.items() if name not in whole}
    return PodFacts(
        name=pod.metadata.name,
        phase=pod.status.phase,
        is_deleting=is_being_deleted(pod),
        ready=None if ready is None else ready.status == "True",
        ready_changed_s=seconds(ready.lastTransitionTime) if ready is not None else 0.0,
        started_s=seconds(pod.status.startTime) if pod.status.HasField("startTime") else None,
        requests=requests,
        container_requests=by_container,
        missing=missing,
    )


def _running(pod: Any) -> list[Any]:
    """The containers that go on: sidecars too."""
    return [*pod.spec.containers, *(one for one in pod.spec.initContainers if one.restartPolicy == "Always")]


def _requests(resources: Any) -> dict[str, int]:
    return {name: Quantity.parse(value.string or "0").milli_value() for name, value in resources.requests.items()}
