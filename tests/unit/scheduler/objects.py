"""Nodes and pods for the scheduler's tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_scheduler.pod_info import PodInfo, pod_info


def node(
    name: str = "n1",
    *,
    cpu: str = "4",
    memory: str = "8Gi",
    pods: str = "110",
    labels: Mapping[str, str] | None = None,
    taints: Iterable[tuple[str, str, str]] = (),
    unschedulable: bool = False,
    more: Mapping[str, str] | None = None,
) -> Node:
    """A node; more are further resources."""
    found = Node()
    found.metadata.name = name
    found.metadata.labels.update(labels or {})
    for key, value in {"cpu": cpu, "memory": memory, "pods": pods, **(more or {})}.items():
        found.status.allocatable[key].string = value
    for key, value, effect in taints:
        found.spec.taints.add(key=key, value=value, effect=effect)
    found.spec.unschedulable = unschedulable
    return found


def pod_message(name: str = "p1", *, cpu: str = "", memory: str = "", port: int = 0, **spec: object) -> Pod:
    """A pod with one container; spec are plain fields of PodSpec."""
    found = Pod()
    found.metadata.name, found.metadata.namespace, found.metadata.uid = name, "default", f"uid-{name}"
    found.spec.schedulerName = "default-scheduler"
    container = found.spec.containers.add(name="c", image="busybox")
    if cpu:
        container.resources.requests["cpu"].string = cpu
    if memory:
        container.resources.requests["memory"].string = memory
    if port:
        container.ports.add(containerPort=port, hostPort=port, protocol="TCP")
    for key, value in spec.items():
        setattr(found.spec, key, value)
    return found


def pod(name: str = "p1", **arguments: Any) -> PodInfo:
    """The same, as the scheduler sees it."""
    return pod_info(pod_message(name, **arguments))
