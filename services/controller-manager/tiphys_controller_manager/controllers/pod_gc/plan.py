"""Which pods nobody else will remove; pure.

Source: kubernetes pkg/controller/podgc/gc_controller.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from tiphys_controller_manager.pods import PodView


def terminated_beyond(pods: Iterable[PodView], threshold: int) -> list[PodView]:
    """Finished pods beyond so many, those that matter least first; none for a threshold of 0."""
    finished = [pod for pod in pods if pod.is_finished and not pod.is_deleting]
    too_many = len(finished) - threshold
    if threshold <= 0 or too_many <= 0:
        return []
    return sorted(finished, key=lambda pod: (pod.created, pod.key))[:too_many]


def unscheduled_ending(pods: Iterable[PodView]) -> list[PodView]:
    """Pods that are being deleted and never came to a node: no kubelet will end them."""
    return [pod for pod in pods if pod.is_deleting and not pod.node]


def on_missing_nodes(pods: Iterable[PodView], nodes: Set[str]) -> dict[str, list[PodView]]:
    """Pods by node, of nodes that are not among those."""
    found: dict[str, list[PodView]] = {}
    for pod in pods:
        if pod.node and pod.node not in nodes:
            found.setdefault(pod.node, []).append(pod)
    return found


def out_of_service(pods: Iterable[PodView], nodes: Set[str]) -> list[PodView]:
    """Pods that are being deleted on nodes which are known to be off."""
    return [pod for pod in pods if pod.is_deleting and pod.node in nodes]
