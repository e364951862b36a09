"""What is set aside for each pod of the node, and whether a pod can have what it newly asks for.

A pod keeps what it was given until a change of its spec is granted; what can't be had now is tried again when room
comes (Deferred), what the whole node could not give never is (Infeasible).
Source: Kubernetes pkg/kubelet/allocation, its reasons, messages and order.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tiphys.api.core.v1.container_pb2 import Container, ResourceRequirements
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.codec.json_codec import from_json, to_json
from tiphys_apimachinery.errors import APIError
from tiphys_apimachinery.pod_resources import Amounts, pod_amounts, read_amounts
from tiphys_apimachinery.quantity import Quantity
from tiphys_kubelet.pod_spec import is_static, qos_class
from tiphys_kubelet.runtime.limits import same_amounts

DEFERRED, INFEASIBLE = "Deferred", "Infeasible"
FILE_NAME = "allocated_pods_state"
RESOURCES = ("memory", "cpu")
ZERO = Quantity.of(0)

# Resources by container.
Allocation = Mapping[str, ResourceRequirements]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a resize is not granted: Deferred or Infeasible, in words, and as the metric has it."""

    reason: str
    message: str
    detail: str = ""


class CorruptState(Exception):
    """The file does not hold what was written."""


def resizable(pod: Pod) -> Iterable[Container]:
    """The containers whose resources may change."""
    yield from pod.spec.containers
    yield from (container for container in pod.spec.initContainers if container.restartPolicy == "Always")


def allocation_of(pod: Pod) -> dict[str, ResourceRequirements]:
    """What the pod's spec asks for."""
    found = {}
    for container in resizable(pod):
        found[container.name] = resources = ResourceRequirements()
        resources.CopyFrom(container.resources)
    return found


def reported_allocation(pod: Pod) -> dict[str, ResourceRequirements] | None:
    """What an earlier life of ours had set aside, as the pod's status tells; None where it tells nothing."""
    told = {s.name: s for s in (*pod.status.containerStatuses, *pod.status.initContainerStatuses)}
    found = allocation_of(pod)
    known = False
    for name, resources in found.items():
        status = told.get(name)
        if status is None or not status.HasField("resources"):
            continue
        known = True
        for values, mine in (
            (status.resources.limits, resources.limits),
            (status.allocatedResources, resources.requests),
        ):
            for resource in RESOURCES:
                if resource in values:
                    mine[resource].CopyFrom(values[resource])
                elif resource in mine:
                    del mine[resource]
    return found if known else None


def with_allocation(pod: Pod, allocation: Allocation) -> Pod:
    """The pod as it is to run; the same object where its spec asks for nothing else."""
    if not is_changed(pod, allocation):
        return pod
    made = Pod()
    made.CopyFrom(pod)
    for container in resizable(made):
        if container.name in allocation:
            container.resources.CopyFrom(allocation[container.name])
    return made


def is_changed(pod: Pod, allocation: Allocation) -> bool:
    """Whether the spec asks for something else than what is set aside."""
    return any(
        container.resources != allocation[container.name] and not _same(container.resources, allocation[container.name])
        for container in resizable(pod)
        if container.name in allocation
    )


def _same(one: Any, other: Any) -> bool:
    return all(
        same_amounts(read_amounts(mine), read_amounts(theirs))
        for mine, theirs in ((one.requests, other.requests), (one.limits, other.limits))
    )


def judge(pod: Pod, others: Iterable[Amounts], allocatable: Mapping[str, Quantity]) -> Refusal | None:
    """Whether the pod can have what its spec asks for, beside what the others have; None where it can."""
    if is_static(pod):
        return Refusal(INFEASIBLE, "In-place resize of static-pods is not supported", "static_pod")
    wanted = pod_amounts(pod.spec, "requests")
    for name in RESOURCES:
        asked, room = _figure(name, wanted), _figure(name, allocatable)
        if asked > room:
            text = f"Node didn't have enough capacity: {name}, requested: {asked}, capacity: {room}"
            return Refusal(INFEASIBLE, text, "insufficient_node_allocatable")
    taken = list(others)
    for name in reversed(RESOURCES):
        asked, room = _figure(name, wanted), _figure(name, allocatable)
        used = sum(_figure(name, amounts) for amounts in taken)
        if asked and used + asked > room:
            text = f"Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {room}"
            return Refusal(DEFERRED, text)
    return None


def _figure(name: str, amounts: Mapping[str, Quantity]) -> int:
    amount = amounts.get(name, ZERO)
    return amount.milli_value() if name == "cpu" else amount.value()


def is_raised(before: Mapping[str, Quantity], after: Mapping[str, Quantity]) -> bool:
    """Whether more of anything is asked for."""
    return any(_figure(name, after) > _figure(name, before) for name in RESOURCES)


def rank(pod: Pod, *, raised: bool, since: float) -> tuple[bool, int, bool, float]:
    """The order in which waiting resizes are tried: what needs nothing, priority, quality class, then the oldest."""
    return raised, -pod.spec.priority, qos_class(pod) != "Guaranteed", since


def changes(container: Container, allocated: ResourceRequirements) -> list[tuple[str, str, str]]:
    """What a resize does to a container: resource, requests or limits, and add, remove, increase or decrease."""
    found = []
    for member in ("requests", "limits"):
        after, before = read_amounts(getattr(container.resources, member)), read_amounts(getattr(allocated, member))
        for name in RESOURCES:
            new, old = after.get(name), before.get(name)
            if new == old:
                continue
            if old is None or new is None:
                operation = "add" if old is None else "remove"
            else:
                operation = "increase" if new > old else "decrease"
            found.append((name, member, operation))
    return found


def encode(allocations: Mapping[str, Allocation]) -> bytes:
    """The checkpoint's content."""
    data = {
        uid: {name: to_json(resources, with_type_meta=False) for name, resources in sorted(containers.items())}
        for uid, containers in sorted(allocations.items())
    }
    return json.dumps({"Data": data, "Checksum": _checksum(data)}).encode()


def decode(content: bytes) -> dict[str, dict[str, ResourceRequirements]]:
    """What the content says. Raises CorruptState."""
    try:
        told = json.loads(content)
        data = told["Data"]
        if told["Checksum"] != _checksum(data):
            raise CorruptState("the checksum does not fit the content")
        return {
            uid: {name: from_json(ResourceRequirements, resources) for name, resources in containers.items()}
            for uid, containers in data.items()
        }
    except (APIError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise CorruptState(f"not a checkpoint: {err!r}") from err


def _checksum(data: object) -> int:
    return zlib.crc32(json.dumps(data, sort_keys=True).encode())
