"""Rules of what steers the placement of pods: tolerations, affinity, spread, taints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tiphys_apimachinery import validation
from tiphys_apimachinery.errors import FieldError

_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_NODE_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
_INTEGER = re.compile(r"[+-]?[0-9]+")


def validate_tolerations(tolerations: Any, path: str) -> Iterator[FieldError]:
    """Faults of tolerations."""
    for index, toleration in enumerate(tolerations):
        where = f"{path}[{index}]"
        operator = toleration.operator
        if not toleration.key and operator != "Exists":
            yield FieldError.invalid(
                f"{where}.operator",
                operator,
                'operator must be Exists when `key` is empty, which means "match all values and all keys"',
            )
        if toleration.HasField("tolerationSeconds") and toleration.effect != "NoExecute":
            yield FieldError.invalid(
                f"{where}.effect", toleration.effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"
            )
        if operator in ("Equal", ""):
            for why in validation.is_label_value(toleration.value):
                yield FieldError.invalid(f"{where}.operator", toleration.value, why)
        elif operator == "Exists":
            if toleration.value:
                yield FieldError.invalid(
                    f"{where}.operator", toleration.value, "value must be empty when `operator` is 'Exists'"
                )
        else:
            yield FieldError.not_supported(f"{where}.operator", operator, ("Equal", "Exists"))
        if toleration.effect and toleration.effect not in _EFFECTS:
            yield FieldError.not_supported(f"{where}.effect", toleration.effect, _EFFECTS)


def validate_taints(taints: Any, path: str) -> Iterator[FieldError]:
    """Faults of a node's taints."""
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(taints):
        where = f"{path}[{index}]"
        for why in validation.is_qualified_name(taint.key):
            yield FieldError.invalid(f"{where}.key", taint.key, why)
        for why in validation.is_label_value(taint.value):
            yield FieldError.invalid(f"{where}.value", taint.value, why)
        if not taint.effect:
            yield FieldError.required(f"{where}.effect")
        elif taint.effect not in _EFFECTS:
            yield FieldError.not_supported(f"{where}.effect", taint.effect, _EFFECTS)
        if (taint.key, taint.effect) in seen:
            yield FieldError.duplicate(where, f"{taint.key}={taint.value}:{taint.effect}")
        seen.add((taint.key, taint.effect))


def validate_node_selector_map(selector: Any, path: str) -> Iterator[FieldError]:
    """Faults of spec.nodeSelector."""
    for key, value in selector.items():
        for why in validation.is_qualified_name(key):
            yield FieldError.invalid(path, key, why)
        for why in validation.is_label_value(value):
            yield FieldError.invalid(path, value, why)


def validate_affinity(affinity: Any, path: str) -> Iterator[FieldError]:
    """Faults of all affinity rules of a pod."""
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    if affinity.HasField("nodeAffinity"):
        where = f"{path}.nodeAffinity"
        if affinity.nodeAffinity.HasField(required):
            yield from validate_node_selector(getattr(affinity.nodeAffinity, required), f"{where}.{required}")
        for index, term in enumerate(getattr(affinity.nodeAffinity, preferred)):
            at = f"{where}.{preferred}[{index}]"
            yield from _weight(term.weight, f"{at}.weight")
            yield from _node_term(term.preference, f"{at}.preference")
    for name in ("podAffinity", "podAntiAffinity"):
        if not affinity.HasField(name):
            continue
        part = getattr(affinity, name)
        for index, term in enumerate(getattr(part, required)):
            yield from _pod_term(term, f"{path}.{name}.{required}[{index}]")
        for index, weighted in enumerate(getattr(part, preferred)):
            at = f"{path}.{name}.{preferred}[{index}]"
            yield from _weight(weighted.weight, f"{at}.weight")
            yield from _pod_term(weighted.podAffinityTerm, f"{at}.podAffinityTerm")


def validate_node_selector(selector: Any, path: str) -> Iterator[FieldError]:
    """Faults of a NodeSelector."""
    if not selector.nodeSelectorTerms:
        yield FieldError.required(f"{path}.nodeSelectorTerms", "must have at least one node selector term")
    for index, term in enumerate(selector.nodeSelectorTerms):
        yield from _node_term(term, f"{path}.nodeSelectorTerms[{index}]")


def _weight(weight: int, path: str) -> Iterator[FieldError]:
    if not 1 <= weight <= 100:
        yield FieldError.invalid(path, weight, "must be in the range 1-100")


def _node_term(term: Any, path: str) -> Iterator[FieldError]:
    for index, requirement in enumerate(term.matchExpressions):
        yield from _node_requirement(requirement, f"{path}.matchExpressions[{index}]")
    for index, requirement in enumerate(term.matchFields):
        at = f"{path}.matchFields[{index}]"
        if requirement.key != "metadata.name":
            yield FieldError.invalid(f"{at}.key", requirement.key, "not a valid field selector key")
        if requirement.operator not in ("In", "NotIn"):
            yield FieldError.invalid(f"{at}.operator", requirement.operator, "not a valid selector operator")
        elif len(requirement.values) != 1:
            yield FieldError.required(
                f"{at}.values", "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            )


def _node_requirement(requirement: Any, path: str) -> Iterator[FieldError]:
    operator, values = requirement.operator, requirement.values
    if operator in ("In", "NotIn"):
        if not values:
            yield FieldError.required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            yield FieldError.forbidden(
                f"{path}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            )
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            yield FieldError.required(
                f"{path}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'"
            )
        elif _INTEGER.fullmatch(values[0]) is None:
            yield FieldError.invalid(f"{path}.values[0]", values[0], "must be an integer")
    else:
        yield FieldError.invalid(f"{path}.operator", operator, "not a valid selector operator")
    for why in validation.is_qualified_name(requirement.key):
        yield FieldError.invalid(f"{path}.key", requirement.key, why)


def _pod_term(term: Any, path: str) -> Iterator[FieldError]:
    if not term.topologyKey:
        yield FieldError.required(f"{path}.topologyKey", "can not be empty")
    for name in ("labelSelector", "namespaceSelector"):
        if term.HasField(name):
            yield from validate_label_selector(getattr(term, name), f"{path}.{name}")
    for index, namespace in enumerate(term.namespaces):
        for why in validation.is_dns1123_label(namespace):
            yield FieldError.invalid(f"{path}.namespaces[{index}]", namespace, why)


def validate_label_selector(selector: Any, path: str) -> Iterator[FieldError]:
    """Faults of a LabelSelector."""
    for key, value in selector.matchLabels.items():
        for why in validation.is_qualified_name(key):
            yield FieldError.invalid(f"{path}.matchLabels", key, why)
        for why in validation.is_label_value(value):
            yield FieldError.invalid(f"{path}.matchLabels", value, why)
    for index, requirement in enumerate(selector.matchExpressions):
        at = f"{path}.matchExpressions[{index}]"
        if requirement.operator in ("In", "NotIn"):
            if not requirement.values:
                yield FieldError.required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif requirement.operator in ("Exists", "DoesNotExist"):
            if requirement.values:
                yield FieldError.forbidden(
                    f"{at}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                )
        else:
            yield FieldError.invalid(f"{at}.operator", requirement.operator, "not a valid selector operator")
        for why in validation.is_qualified_name(requirement.key):
            yield FieldError.invalid(f"{at}.key", requirement.key, why)
        for number, value in enumerate(requirement.values):
            for why in validation.is_label_value(value):
                yield FieldError.invalid(f"{at}.values[{number}]", value, why)


def validate_spread(constraints: Any, path: str) -> Iterator[FieldError]:
    """Faults of topologySpreadConstraints."""
    seen: set[tuple[str, str]] = set()
    for index, constraint in enumerate(constraints):
        at = f"{path}[{index}]"
        pair = (constraint.topologyKey, constraint.whenUnsatisfiable)
        if pair in seen:
            shown = f"{{{pair[0]}, {pair[1]}}}"
            yield FieldError.duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", shown)
        seen.add(pair)
        if constraint.HasField("minDomains") and constraint.whenUnsatisfiable != "DoNotSchedule":
            yield FieldError.invalid(
                f"{at}.minDomains",
                constraint.minDomains,
                "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
            )
        if constraint.HasField("labelSelector"):
            yield from validate_label_selector(constraint.labelSelector, f"{at}.labelSelector")
