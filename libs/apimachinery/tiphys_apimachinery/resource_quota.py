"""What objects use of a quota: which quotas count an object, and how much of each resource it takes. Pure.

Shared by admission, which refuses what is too much, and by the controller, which counts anew.
Source: Kubernetes pkg/quota/v1/evaluator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from google.protobuf.message import Message

from tiphys_apimachinery.meta import to_datetime
from tiphys_apimachinery.pod_resources import Amounts, add, is_best_effort, pod_amounts, read_amounts
from tiphys_apimachinery.quantity import Quantity

ONE: Final = Quantity.of(1)
_CLASS: Final = ".storageclass.storage.k8s.io/"
_COMPUTE: Final = ("cpu", "memory", "ephemeral-storage")
_REQUESTS, _LIMITS = "requests.", "limits."
# Plurals that have a name of their own beside count/NAME.
_PLAIN: Final = frozenset({"configmaps", "secrets", "replicationcontrollers", "resourcequotas"})
TERMINATING, NOT_TERMINATING = "Terminating", "NotTerminating"
BEST_EFFORT, NOT_BEST_EFFORT = "BestEffort", "NotBestEffort"
PRIORITY_CLASS, CROSS_NAMESPACE = "PriorityClass", "CrossNamespacePodAffinity"

Usage = Callable[[Any, datetime], Amounts]


def counted_name(plural: str, group: str) -> str:
    """The name by which a quota counts objects of a kind: count/deployments.apps."""
    return f"count/{plural}.{group}" if group else f"count/{plural}"


def usage_of(plural: str, group: str, obj: Message, now: datetime) -> Amounts:
    """Everything that an object takes, by every name that a quota may have for it."""
    own = _USAGES.get(plural) if not group else None
    found: Amounts = {counted_name(plural, group): ONE}
    if own is not None:
        found = add(found, own(obj, now))
    elif not group and plural in _PLAIN:
        found[plural] = ONE
    return found


def missing_requirements(hard: Mapping[str, Quantity], pod: Any) -> dict[str, list[str]]:
    """Resources that the quota limits and containers of a pod do not name, by resource; they must, to be counted."""
    own = read_amounts(pod.spec.resources.requests) if pod.spec.HasField("resources") else {}
    own_limits = read_amounts(pod.spec.resources.limits) if pod.spec.HasField("resources") else {}
    missing: dict[str, list[str]] = {}
    for name in sorted(hard):
        kind, resource = _compute(name)
        if not kind or (resource in own if kind == _REQUESTS else resource in own_limits):
            continue
        for container in (*pod.spec.containers, *pod.spec.initContainers):
            values = container.resources.requests if kind == _REQUESTS else container.resources.limits
            if resource not in values:
                missing.setdefault(name, []).append(container.name)
    return missing


def _compute(name: str) -> tuple[str, str]:
    """requests. or limits. with cpu or memory; empty for a resource that containers need not name."""
    if name in ("cpu", "memory"):
        return _REQUESTS, name
    for kind in (_REQUESTS, _LIMITS):
        if name.startswith(kind) and name.removeprefix(kind) in ("cpu", "memory"):
            return kind, name.removeprefix(kind)
    return "", ""


def matches(quota: Any, plural: str, group: str, obj: Any) -> bool:
    """Whether a quota's scopes take the object in; what is not a pod is in no scope."""
    spec = quota.spec
    if not spec.scopes and not spec.scopeSelector.matchExpressions:
        return True
    if group or plural != "pods":
        return False
    scopes = all(_in_scope(scope, obj, "Exists", ()) for scope in spec.scopes)
    return scopes and all(
        _in_scope(item.scopeName, obj, item.operator, tuple(item.values))
        for item in spec.scopeSelector.matchExpressions
    )


def _in_scope(scope: str, pod: Any, operator: str, values: tuple[str, ...]) -> bool:
    if scope == PRIORITY_CLASS:
        name = pod.spec.priorityClassName
        return {
            "Exists": bool(name),
            "DoesNotExist": not name,
            "In": name in values,
            "NotIn": name not in values,
        }.get(operator, False)
    found = {
        TERMINATING: _is_terminating(pod),
        NOT_TERMINATING: not _is_terminating(pod),
        BEST_EFFORT: is_best_effort(pod.spec),
        NOT_BEST_EFFORT: not is_best_effort(pod.spec),
        CROSS_NAMESPACE: _crosses_namespaces(pod),
    }.get(scope, False)
    return not found if operator == "DoesNotExist" else found


def _is_terminating(pod: Any) -> bool:
    return bool(pod.spec.HasField("activeDeadlineSeconds") and pod.spec.activeDeadlineSeconds >= 0)


def _crosses_namespaces(pod: Any) -> bool:
    affinity = pod.spec.affinity
    terms = []
    for side in (affinity.podAffinity, affinity.podAntiAffinity):
        terms += side.requiredDuringSchedulingIgnoredDuringExecution
        terms += [item.podAffinityTerm for item in side.preferredDuringSchedulingIgnoredDuringExecution]
    return any(term.namespaces or term.HasField("namespaceSelector") for term in terms)


def _pod_usage(pod: Any, now: datetime) -> Amounts:
    """A pod that has ended takes nothing but its own record; one that should be long gone neither."""
    if not is_counted(pod, now):
        return {}
    requests, limits = pod_amounts(pod.spec, "requests"), pod_amounts(pod.spec, "limits")
    found: Amounts = {"pods": ONE}
    for name, amount in requests.items():
        found[_REQUESTS + name] = amount
        if name in _COMPUTE or name.startswith("hugepages-"):
            found[name] = amount
    for name, amount in limits.items():
        if name in _COMPUTE:
            found[_LIMITS + name] = amount
    return found


def is_counted(pod: Any, now: datetime) -> bool:
    """Whether a pod still takes compute resources."""
    if pod.status.phase in ("Failed", "Succeeded"):
        return False
    ends = to_datetime(pod.metadata.deletionTimestamp) if pod.metadata.HasField("deletionTimestamp") else None
    if ends is None or not pod.metadata.HasField("deletionGracePeriodSeconds"):
        return True
    # Its node is gone or deaf: what waits for the pod's end must not wait for ever.
    return now <= ends + timedelta(seconds=pod.metadata.deletionGracePeriodSeconds)


def _service_usage(service: Any, _now: datetime) -> Amounts:
    found: Amounts = {"services": ONE}
    ports = Quantity.of(len(service.spec.ports))
    if service.spec.type == "NodePort":
        found["services.nodeports"] = ports
    elif service.spec.type == "LoadBalancer":
        found["services.loadbalancers"] = ONE
        opened = (
            not service.spec.HasField("allocateLoadBalancerNodePorts") or service.spec.allocateLoadBalancerNodePorts
        )
        found["services.nodeports"] = ports if opened else Quantity.of(0)
    return found


def _claim_usage(claim: Any, _now: datetime) -> Amounts:
    found: Amounts = {"persistentvolumeclaims": ONE}
    asked = read_amounts(claim.spec.resources.requests).get("storage")
    name = claim.spec.storageClassName
    if name:
        found[f"{name}{_CLASS}persistentvolumeclaims"] = ONE
    if asked is not None:
        found["requests.storage"] = asked
        if name:
            found[f"{name}{_CLASS}requests.storage"] = asked
    return found


_USAGES: Final[Mapping[str, Usage]] = {
    "pods": _pod_usage,
    "services": _service_usage,
    "persistentvolumeclaims": _claim_usage,
}


def kinds_of(hard: Mapping[str, Any]) -> set[tuple[str, str]]:
    """(plural, group) of the objects that have to be counted for these resources."""
    found: set[tuple[str, str]] = set()
    for name in hard:
        if name.startswith("count/"):
            plural, _, group = name.removeprefix("count/").partition(".")
            found.add((plural, group))
        elif name in _PLAIN:
            found.add((name, ""))
        elif name.startswith("services"):
            found.add(("services", ""))
        elif _CLASS in name or name in ("persistentvolumeclaims", "requests.storage"):
            found.add(("persistentvolumeclaims", ""))
        else:
            found.add(("pods", ""))
    return found
