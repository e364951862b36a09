"""Rules of compute resources: names, amounts, and requests against limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tiphys_apimachinery import validation
from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.quantity import Quantity, QuantityError

_STANDARD = frozenset({"cpu", "memory", "ephemeral-storage"})
_HUGE_PAGES = "hugepages-"
_NOT_NEGATIVE = "must be greater than or equal to 0"
_WHOLE = "must be an integer"


def is_extended(name: str) -> bool:
    """Whether a resource is one that a device plug-in or an administrator made up: example.com/gpu."""
    return "/" in name and "kubernetes.io/" not in name and not name.startswith("requests.")


def may_overcommit(name: str) -> bool:
    """Whether a limit may be more than the request."""
    return not is_extended(name) and not name.startswith(_HUGE_PAGES)


def validate_requirements(resources: Any, path: str) -> Iterator[FieldError]:
    """Faults of a container's resources."""
    requests, limits = resources.requests, resources.limits
    amounts: dict[str, dict[str, Quantity]] = {"requests": {}, "limits": {}}
    for member, values in (("limits", limits), ("requests", requests)):
        for name in values:
            where = f"{path}.{member}[{name}]"
            yield from _name_errors(name, f"{path}.{member}")
            amount = parse(values[name])
            if amount is None:
                continue
            amounts[member][name] = amount
            yield from amount_errors(name, amount, where)
    for name, wanted in amounts["requests"].items():
        limit = amounts["limits"].get(name)
        where = f"{path}.requests"
        if limit is not None and may_overcommit(name) and wanted > limit:
            yield FieldError.invalid(where, str(wanted), f"must be less than or equal to {name} limit of {limit}")
        elif limit is not None and not may_overcommit(name) and wanted != limit:
            yield FieldError.invalid(where, str(wanted), f"must be equal to {name} limit of {limit}")
        elif limit is None and not may_overcommit(name):
            yield FieldError.required(f"{path}.limits", "Limit must be set for non overcommitable resources")


def amount_errors(name: str, amount: Quantity, path: str) -> Iterator[FieldError]:
    """Faults of one amount of a resource."""
    if amount.nanos < 0:
        yield FieldError.invalid(path, str(amount), _NOT_NEGATIVE)
    if (is_extended(name) or name.startswith(_HUGE_PAGES) or name == "pods") and amount.nanos % 10**9:
        yield FieldError.invalid(path, str(amount), _WHOLE)


def parse(value: Any) -> Quantity | None:
    """The amount in a Quantity message, None where it is no amount (the schema's rules say so)."""
    try:
        return Quantity.parse(value.string or "0")
    except QuantityError:
        return None


def _name_errors(name: str, path: str) -> Iterator[FieldError]:
    for why in validation.is_qualified_name(name):
        yield FieldError.invalid(path, name, why)
    if "/" not in name and name not in _STANDARD and not name.startswith(_HUGE_PAGES):
        yield FieldError.invalid(path, name, "must be a standard resource type or fully qualified")
        yield FieldError.invalid(path, name, "must be a standard resource for containers")
