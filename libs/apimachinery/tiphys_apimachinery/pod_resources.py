"""What a pod asks for and may use, summed over its containers; and its class of service. Pure.

Shared by whoever counts pods: admission, quotas, schedulers of other makes. Amounts are exact.
Source: Kubernetes component-helpers resource, pkg/apis/core/helper/qos.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tiphys_apimachinery.quantity import Quantity

Amounts = dict[str, Quantity]


def read_amounts(values: Mapping[str, Any]) -> Amounts:
    """The amounts in a map of Quantity messages; an empty text is zero."""
    return {name: Quantity.parse(values[name].string or "0") for name in values}


def write_amounts(target: Any, amounts: Mapping[str, Quantity]) -> None:
    """Make a map of Quantity messages hold exactly these."""
    target.clear()
    for name, amount in amounts.items():
        target[name].string = str(amount)


def add(one: Mapping[str, Quantity], other: Mapping[str, Quantity]) -> Amounts:
    """Both together, name by name."""
    total = dict(one)
    for name, amount in other.items():
        total[name] = total[name] + amount if name in total else amount
    return total


def most(one: Mapping[str, Quantity], other: Mapping[str, Quantity]) -> Amounts:
    """The larger of both, name by name."""
    found = dict(one)
    for name, amount in other.items():
        found[name] = max(found[name], amount) if name in found else amount
    return found


def pod_amounts(spec: Any, member: str) -> Amounts:
    """The pod's requests or limits (member names which): its containers together, or more where starting takes more.

    Init containers run one by one, each beside the sidecars that started before it; overhead comes on top.
    """
    total: Amounts = {}
    for container in spec.containers:
        total = add(total, read_amounts(getattr(container.resources, member)))
    sidecars: Amounts = {}
    starting: Amounts = {}
    for container in spec.initContainers:
        own = read_amounts(getattr(container.resources, member))
        if container.restartPolicy == "Always":
            sidecars = add(sidecars, own)
            starting = most(starting, sidecars)
        else:
            starting = most(starting, add(sidecars, own))
    total = most(add(total, sidecars), starting)
    if spec.HasField("resources"):
        total |= read_amounts(getattr(spec.resources, member))
    overhead = read_amounts(spec.overhead)
    if member == "limits":
        # What has no limit stays without one.
        overhead = {name: amount for name, amount in overhead.items() if name in total}
    return add(total, overhead)


def is_best_effort(spec: Any) -> bool:
    """Whether no container asks for or limits cpu or memory."""
    parts: Iterable[Any] = [container.resources for container in (*spec.containers, *spec.initContainers)]
    if spec.HasField("resources"):
        parts = [*parts, spec.resources]
    return not any(
        name in values and Quantity.parse(values[name].string or "0")
        for part in parts
        for values in (part.requests, part.limits)
        for name in ("cpu", "memory")
    )
