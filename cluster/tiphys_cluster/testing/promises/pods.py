"""Of pods and the nodes that they are on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tiphys.api.core.v1 import node_pb2, pod_pb2
from tiphys_apimachinery.meta import get_controller_of, namespaced_name
from tiphys_apimachinery.quantity import Quantity
from tiphys_cluster.testing.guard import Guard


def bound_once(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """A pod that has a node keeps it."""
    if before is None or after is None or before.metadata.uid != after.metadata.uid:
        return
    if before.spec.nodeName and before.spec.nodeName != after.spec.nodeName:
        yield f"{namespaced_name(after)} moved from {before.spec.nodeName} to {after.spec.nodeName!r}"


def one_of_a_name_runs(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """No two pods of one name run at one time, on whatever nodes."""
    if after is not None and len(guard.running.get(namespaced_name(after), ())) > 1:
        yield f"{namespaced_name(after)} runs {len(guard.running[namespaced_name(after)])} times"


def node_holds(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """What pods of a node ask for is what it has, at most."""
    if after is None or not after.spec.nodeName or (before is not None and before.spec.nodeName):
        return
    node = guard.world.of(node_pb2.Node).get(after.spec.nodeName)
    if node is None or not node.status.allocatable:
        return
    asked: Counter[str] = Counter()
    for pod in guard.world.of(pod_pb2.Pod).values():
        if pod.spec.nodeName == after.spec.nodeName and pod.status.phase not in ("Succeeded", "Failed"):
            asked.update(requests_of(pod))
            asked["pods"] += 1000
    for name, amount in asked.items():
        has = millis(node.status.allocatable[name]) if name in node.status.allocatable else 0
        if amount > has:
            yield f"{after.spec.nodeName} has pods that ask for {amount}m of {name}, has {has}m"


def owner_is_kept(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """What has a controller is let go before another takes it over, and has never two."""
    if after is None:
        return
    if sum(one.controller for one in after.metadata.ownerReferences) > 1:
        yield f"{namespaced_name(after)} has several controllers"
    if before is None or before.metadata.uid != after.metadata.uid:
        return
    was, now = get_controller_of(before), get_controller_of(after)
    if was is not None and now is not None and was.uid != now.uid:
        yield f"{namespaced_name(after)} was taken from {was.name} by {now.name}"


def victims_are_lesser(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """A pod makes room only for one of a higher priority."""
    if after is None or before is None or _makes_room(before) or not _makes_room(after):
        return
    if all(pod.spec.priority <= after.spec.priority for pod in guard.world.of(pod_pb2.Pod).values()):
        yield f"{namespaced_name(after)} makes room, and has the highest priority {after.spec.priority}"


def requests_of(pod: pod_pb2.Pod) -> Counter[str]:
    """What a pod's containers ask for together, in thousandths."""
    asked: Counter[str] = Counter()
    for container in pod.spec.containers:
        for name, amount in container.resources.requests.items():
            asked[name] += millis(amount)
    return asked


def millis(amount: Any) -> int:
    """Thousandths of a quantity."""
    return Quantity.parse(amount.string).milli_value()


def _makes_room(pod: pod_pb2.Pod) -> bool:
    return any(
        one.type == "DisruptionTarget" and one.reason == "PreemptionByScheduler" for one in pod.status.conditions
    )
