"""Rules for the policies of a job: what failed pods mean, which indexes are enough, and the limits of indexed jobs.

Source: kubernetes pkg/apis/batch/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tiphys_apimachinery import validation
from tiphys_apimachinery.errors import FieldError

_MOST_RULES = 20
_MOST_EXIT_CODES = 255
_MOST_PATTERNS = 20
_MAX_INDEXED_PARALLELISM = 100_000
_MAX_FAILED_INDEXES = 100_000
# Above so many completions a limit per index costs too much to keep for more pods and failures than these.
_MANY_COMPLETIONS = 100_000
_MAX_WITH_MANY = 10_000
_MAX_INDEXES_TEXT = 64 * 1024
_MAX_MANAGED_BY = 63


def policy_errors(spec: Any, path: str) -> Iterator[FieldError]:
    """Faults of the parts of a job's spec that are more than counts."""
    is_indexed = spec.completionMode == "Indexed"
    if is_indexed:
        yield from _indexed(spec, path)
    else:
        for name in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if spec.HasField(name):
                yield FieldError.invalid(f"{path}.{name}", getattr(spec, name), "requires indexed completion mode")
        if spec.HasField("successPolicy"):
            yield FieldError.invalid(f"{path}.successPolicy", {}, "requires indexed completion mode")
    if spec.HasField("maxFailedIndexes") and not spec.HasField("backoffLimitPerIndex"):
        yield FieldError.required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified")
    if spec.template.spec.restartPolicy != "Never":
        for name in ("podFailurePolicy", "backoffLimitPerIndex"):
            if spec.HasField(name):
                yield FieldError.invalid(
                    f"{path}.template.spec.restartPolicy",
                    spec.template.spec.restartPolicy,
                    f'only "Never" is supported when {name} is specified',
                )
    if spec.HasField("podFailurePolicy"):
        yield from _failure_policy(spec, f"{path}.podFailurePolicy")
        if spec.podReplacementPolicy not in ("", "Failed"):
            yield FieldError.not_supported(f"{path}.podReplacementPolicy", spec.podReplacementPolicy, ["Failed"])
    if spec.HasField("successPolicy") and is_indexed:
        yield from _success_policy(spec, f"{path}.successPolicy")
    if spec.HasField("managedBy"):
        yield from _managed_by(spec.managedBy, f"{path}.managedBy")


def _managed_by(name: str, path: str) -> Iterator[FieldError]:
    if len(name) > _MAX_MANAGED_BY:
        yield FieldError.too_long(path, _MAX_MANAGED_BY)
    if "/" not in name:
        yield FieldError.invalid(path, name, 'must be a domain-prefixed path (such as "acme.io/foo")')
    for why in validation.is_qualified_name(name):
        yield FieldError.invalid(path, name, why)


def _indexed(spec: Any, path: str) -> Iterator[FieldError]:
    if not spec.HasField("completions"):
        yield FieldError.required(f"{path}.completions", "when completion mode is Indexed")
    if spec.parallelism > _MAX_INDEXED_PARALLELISM:
        why = f"must be less than or equal to {_MAX_INDEXED_PARALLELISM} when completion mode is Indexed"
        yield FieldError.invalid(f"{path}.parallelism", spec.parallelism, why)
    if spec.HasField("maxFailedIndexes"):
        most = spec.maxFailedIndexes
        if spec.HasField("completions") and most > spec.completions:
            yield FieldError.invalid(f"{path}.maxFailedIndexes", most, "must be less than or equal to completions")
        if most > _MAX_FAILED_INDEXES:
            why = f"must be less than or equal to {_MAX_FAILED_INDEXES}"
            yield FieldError.invalid(f"{path}.maxFailedIndexes", most, why)
    if spec.HasField("backoffLimitPerIndex") and spec.completions > _MANY_COMPLETIONS:
        why = (
            f"must be less than or equal to {_MAX_WITH_MANY} when completions are above {_MANY_COMPLETIONS}"
            " and used with backoff limit per index"
        )
        if not spec.HasField("maxFailedIndexes"):
            text = f"must be specified when completions is above {_MANY_COMPLETIONS}"
            yield FieldError.required(f"{path}.maxFailedIndexes", text)
        for name in ("parallelism", "maxFailedIndexes"):
            if getattr(spec, name) > _MAX_WITH_MANY:
                yield FieldError.invalid(f"{path}.{name}", getattr(spec, name), why)


def _failure_policy(spec: Any, path: str) -> Iterator[FieldError]:
    rules = spec.podFailurePolicy.rules
    if len(rules) > _MOST_RULES:
        yield FieldError.too_many(f"{path}.rules", len(rules), _MOST_RULES)
    pod = spec.template.spec
    containers = {container.name for container in (*pod.initContainers, *pod.containers)}
    for number, rule in enumerate(rules):
        where = f"{path}.rules[{number}]"
        if rule.action == "FailIndex" and not spec.HasField("backoffLimitPerIndex"):
            yield FieldError.invalid(f"{where}.action", rule.action, "requires the backoffLimitPerIndex to be set")
        if rule.HasField("onExitCodes"):
            yield from _exit_codes(rule.onExitCodes, f"{where}.onExitCodes", containers)
        if len(rule.onPodConditions) > _MOST_PATTERNS:
            yield FieldError.too_many(f"{where}.onPodConditions", len(rule.onPodConditions), _MOST_PATTERNS)
        if rule.HasField("onExitCodes") and rule.onPodConditions:
            yield FieldError.invalid(where, {}, "specifying both OnExitCodes and OnPodConditions is not supported")
        if not rule.HasField("onExitCodes") and not rule.onPodConditions:
            yield FieldError.invalid(where, {}, "specifying one of OnExitCodes and OnPodConditions is required")


def _exit_codes(wanted: Any, path: str, containers: set[str]) -> Iterator[FieldError]:
    if wanted.HasField("containerName") and wanted.containerName not in containers:
        why = "must be one of the container or initContainer names in the pod template"
        yield FieldError.invalid(f"{path}.containerName", wanted.containerName, why)
    values = list(wanted.values)
    if not values:
        yield FieldError.invalid(f"{path}.values", [], "at least one value is required")
    elif len(values) > _MOST_EXIT_CODES:
        yield FieldError.too_many(f"{path}.values", len(values), _MOST_EXIT_CODES)
    if values != sorted(values):
        yield FieldError.invalid(f"{path}.values", values, "must be ordered")
    for number, value in enumerate(values):
        if value == 0 and wanted.operator == "In":
            yield FieldError.invalid(f"{path}.values[{number}]", value, "must not be 0 for the In operator")
        if value in values[:number]:
            yield FieldError.duplicate(f"{path}.values[{number}]", value)


def _success_policy(spec: Any, path: str) -> Iterator[FieldError]:
    rules = spec.successPolicy.rules
    if not rules:
        text = "at least one rules must be specified when the successPolicy is specified"
        yield FieldError.required(f"{path}.rules", text)
    if len(rules) > _MOST_RULES:
        yield FieldError.too_many(f"{path}.rules", len(rules), _MOST_RULES)
    for number, rule in enumerate(rules):
        where = f"{path}.rules[{number}]"
        has_indexes, has_count = rule.HasField("succeededIndexes"), rule.HasField("succeededCount")
        if not has_indexes and not has_count:
            yield FieldError.required(where, "at least one of succeededCount or succeededIndexes must be specified")
        most, bound = spec.completions, "completions"
        if has_indexes:
            text = rule.succeededIndexes
            if why := indexes_fault(text, spec.completions):
                why = f"error parsing succeededIndexes: {why}"
                yield FieldError.invalid(f"{where}.succeededIndexes", text, why)
                continue
            if len(text) > _MAX_INDEXES_TEXT:
                yield FieldError.too_long(f"{where}.succeededIndexes", _MAX_INDEXES_TEXT)
            most = count_indexes(text)
            bound = "the number of indexes in the specified succeededIndexes field"
        if has_count and rule.succeededCount > most:
            why = f"must be less than or equal to {most} ({bound})"
            yield FieldError.invalid(f"{where}.succeededCount", rule.succeededCount, why)


def indexes_fault(text: str, completions: int) -> str:
    """What is wrong with a list of indexes such as 0,2-4: rising ranges below completions; "" where it is right."""
    before = -1
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        for number in (first, last) if dash else (first,):
            if not (number.isascii() and number.isdigit() and len(number) <= 9):
                return f"cannot convert string to integer for index: {number!r}"
        begin, end = int(first), int(last or first)
        if begin >= completions:
            return f"too large index: {first!r}"
        if end >= completions:
            return f"too large index: {last!r}"
        if begin <= before:
            return f"non-increasing order, previous: {before}, current: {begin}"
        if end < begin or (dash and end == begin):
            return f"non-increasing order, previous: {begin}, current: {end}"
        before = end
    return ""


def count_indexes(text: str) -> int:
    """How many indexes a list without faults names."""
    total = 0
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        total += int(last or first) - int(first) + 1
    return total
