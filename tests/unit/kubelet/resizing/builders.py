"""Pods with resources, and containers that have some, made short."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.unit.kubelet.builders import RUNNING, box, make_pod, run, seen
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_kubelet.observation import PodObservation
from tiphys_kubelet.runtime.limits import container_limits

MI = 1024 * 1024


def set_resources(pod: Pod, name: str, text: str, *, restart: str = "") -> Pod:
    """Gives a container "cpu memory" as requests, or "cpu memory / cpu memory" with limits; - leaves one out."""
    container = next(c for c in (*pod.spec.containers, *pod.spec.initContainers) if c.name == name)
    requests, _, limits = text.partition(" / ")
    for target, words in ((container.resources.requests, requests), (container.resources.limits, limits)):
        target.clear()
        for resource, word in zip(("cpu", "memory"), words.split(), strict=False):
            if word != "-":
                target[resource].string = word
    if restart:
        container.resizePolicy.add(resourceName=restart, restartPolicy="RestartContainer")
    return pod


def pod_of(uid: str = "uid-1", *, restart: str = "", generation: int = 1, **resources: str) -> Pod:
    """A pod of containers with these resources."""
    return pod_with(resources, uid=uid, restart=restart, generation=generation)


def pod_with(resources: Mapping[str, str], *, uid: str = "uid-1", restart: str = "", generation: int = 1) -> Pod:
    """The same of containers named elsewhere."""
    pod = make_pod(*resources)
    pod.metadata.uid = pod.metadata.name = uid
    pod.metadata.generation = generation
    for name, text in resources.items():
        set_resources(pod, name, text, restart=restart)
    return pod


def seen_with(pod: Pod, has: Mapping[str, str], **stopped: Any) -> PodObservation:
    """All containers run, with these resources where named, else with their own."""
    runs = []
    for container in pod.spec.containers:
        actual = (
            pod_with({container.name: has[container.name]}).spec.containers[0] if container.name in has else container
        )
        runs.append(replace(run(pod, container.name, RUNNING), limits=container_limits(actual)))
    return seen(box(), *runs)
