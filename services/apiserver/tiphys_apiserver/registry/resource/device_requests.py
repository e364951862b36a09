"""What claims, templates and classes have in common: requests, conditions, constraints, settings.

Source: kubernetes pkg/apis/resource/validation.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from tiphys_apimachinery.cel.program import compile_program
from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.formats import is_c_identifier, is_dns1123_subdomain
from tiphys_apimachinery.quantity import Quantity

if TYPE_CHECKING:
    from tiphys_apimachinery.cel.functions import Library

MOST: Final = 32
MOST_CHOICES: Final = 8
MOST_TOLERATIONS: Final = 16
LONGEST_EXPRESSION: Final = 10 * 1024
MOST_BYTES: Final = 10 * 1024
LONGEST_IDENTIFIER: Final = 32
LONGEST_DOMAIN: Final = 63
_DEVICE: Final = frozenset({"device"})


def default_requests(spec: Any) -> None:
    """A request for some devices is for one where it does not say."""
    # A value and no pointer in Kubernetes: never absent, so that an object written twice is the same.
    spec.devices.SetInParent()
    for request in spec.devices.requests:
        every = [*request.firstAvailable, *([request.exactly] if request.HasField("exactly") else [])]
        for item in every:
            if item.allocationMode == "ExactCount" and not item.count:
                item.count = 1


def claim_spec_errors(spec: Any, path: str) -> Iterator[FieldError]:
    """Faults of a claim's spec that the schema cannot tell."""
    devices, where = spec.devices, f"{path}.devices"
    yield from _too_many(devices.requests, MOST, f"{where}.requests")
    names: set[str] = set()
    for index, request in enumerate(devices.requests):
        at = f"{where}.requests[{index}]"
        if request.name in names:
            yield FieldError.duplicate(f"{at}.name", request.name)
        names.add(request.name)
        yield from _request(request, at)
    known = set(request_names(spec))
    yield from _too_many(devices.constraints, MOST, f"{where}.constraints")
    for index, constraint in enumerate(devices.constraints):
        yield from _constraint(constraint, known, f"{where}.constraints[{index}]")
    yield from _too_many(devices.config, MOST, f"{where}.config")
    for index, setting in enumerate(devices.config):
        at = f"{where}.config[{index}]"
        yield from _named_requests(setting.requests, known, f"{at}.requests")
        yield from config_errors(setting.deviceConfiguration, at)


def request_names(spec: Any) -> Iterator[str]:
    """Everything that may be named as a request: REQUEST, and REQUEST/CHOICE."""
    for request in spec.devices.requests:
        yield request.name
        for choice in request.firstAvailable:
            yield f"{request.name}/{choice.name}"


def asks_for_admin_access(spec: Any) -> Iterator[int]:
    """The places of requests that are for watching over devices of others."""
    for index, request in enumerate(spec.devices.requests):
        if request.HasField("exactly") and request.exactly.adminAccess:
            yield index


def selector_errors(selectors: Any, path: str) -> Iterator[FieldError]:
    """Faults of conditions on devices."""
    yield from _too_many(selectors, MOST, path)
    for index, selector in enumerate(selectors):
        at = f"{path}[{index}].cel"
        if not selector.HasField("cel"):
            yield FieldError.required(at)
            continue
        expression = selector.cel.expression
        if len(expression.encode()) > LONGEST_EXPRESSION:
            yield FieldError.too_long(f"{at}.expression", LONGEST_EXPRESSION)
        elif expression.strip():
            try:
                compile_program(expression, _DEVICE, _library)
            except CelError as err:
                yield FieldError.invalid(f"{at}.expression", expression, f"compilation failed: {err}")


def config_errors(setting: Any, path: str) -> Iterator[FieldError]:
    """Faults of settings for a driver."""
    if not setting.HasField("opaque"):
        yield FieldError.required(path, "exactly one of: opaque")
        return
    raw = setting.opaque.parameters.raw
    if len(raw) > MOST_BYTES:
        yield FieldError.too_long(f"{path}.opaque.parameters", MOST_BYTES)
    elif raw and not raw.lstrip().startswith(b"{"):
        yield FieldError.invalid(f"{path}.opaque.parameters", "<value omitted>", "must be a valid JSON object")


def qualified_name_errors(name: str, path: str, *, needs_domain: bool = False) -> Iterator[FieldError]:
    """Faults of the name of an attribute or capacity: an identifier, with or without a domain before a slash."""
    domain, slash, own = name.rpartition("/")
    if needs_domain and name and not slash:
        yield FieldError.invalid(path, name, "a fully qualified name must be a domain and a name separated by a slash")
        return
    if slash:
        if not domain:
            yield FieldError.required(path, "the domain must not be empty")
        elif len(domain) > LONGEST_DOMAIN:
            yield FieldError.too_long(path, LONGEST_DOMAIN)
        else:
            for why in is_dns1123_subdomain(domain):
                yield FieldError.invalid(path, domain, why)
    if not own:
        yield FieldError.required(path, "the name must not be empty")
    elif len(own) > LONGEST_IDENTIFIER:
        yield FieldError.too_long(path, LONGEST_IDENTIFIER)
    else:
        for why in is_c_identifier(own):
            yield FieldError.invalid(path, own, why)


def _request(request: Any, path: str) -> Iterator[FieldError]:
    if request.HasField("exactly") == bool(request.firstAvailable):
        ways = "exactly one of `exactly` or `firstAvailable` is required"
        if request.firstAvailable:
            yield FieldError.invalid(path, request.name, ways)
        else:
            yield FieldError.required(path, ways)
        return
    if request.HasField("exactly"):
        yield from _devices(request.exactly, f"{path}.exactly")
        return
    yield from _too_many(request.firstAvailable, MOST_CHOICES, f"{path}.firstAvailable")
    names: set[str] = set()
    for index, choice in enumerate(request.firstAvailable):
        at = f"{path}.firstAvailable[{index}]"
        if choice.name in names:
            yield FieldError.duplicate(f"{at}.name", choice.name)
        names.add(choice.name)
        yield from _devices(choice, at)


def _devices(item: Any, path: str) -> Iterator[FieldError]:
    yield from selector_errors(item.selectors, f"{path}.selectors")
    if item.allocationMode == "All" and item.count:
        yield FieldError.invalid(f"{path}.count", item.count, "must not be specified when allocationMode is 'All'")
    if item.allocationMode == "ExactCount" and item.count < 1:
        yield FieldError.invalid(f"{path}.count", item.count, "must be greater than zero")
    yield from _too_many(item.tolerations, MOST_TOLERATIONS, f"{path}.tolerations")
    for index, toleration in enumerate(item.tolerations):
        at = f"{path}.tolerations[{index}]"
        if toleration.operator == "Exists" and toleration.value:
            yield FieldError.invalid(f"{at}.value", toleration.value, "must be empty for operator `Exists`")
        if toleration.operator == "Equal" and not toleration.key:
            yield FieldError.required(f"{at}.key", "must be set for operator `Equal`")
    for name, amount in item.capacity.requests.items():
        at = f"{path}.capacity.requests[{name}]"
        yield from qualified_name_errors(name, at)
        if Quantity.parse(amount.string).nanos < 0:
            yield FieldError.invalid(at, amount.string, "must be greater than or equal to 0")


def _constraint(constraint: Any, known: set[str], path: str) -> Iterator[FieldError]:
    yield from _named_requests(constraint.requests, known, f"{path}.requests")
    given = [name for name in ("matchAttribute", "distinctAttribute") if constraint.HasField(name)]
    if len(given) != 1:
        yield FieldError.required(path, "exactly one of: matchAttribute, distinctAttribute")
    for name in given:
        yield from qualified_name_errors(getattr(constraint, name), f"{path}.{name}", needs_domain=True)


def _named_requests(named: Any, known: set[str], path: str) -> Iterator[FieldError]:
    yield from _too_many(named, MOST, path)
    for index, name in enumerate(named):
        if name not in known:
            why = (
                "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
            )
            yield FieldError.invalid(f"{path}[{index}]", name, why)
        if name in named[:index]:
            yield FieldError.duplicate(f"{path}[{index}]", name)


def _too_many(items: Any, most: int, path: str) -> Iterator[FieldError]:
    if len(items) > most:
        yield FieldError.invalid(path, len(items), f"must have at most {most} items")


@cache
def _library() -> Library:
    from tiphys_apimachinery.cel.functions import COMMON, library

    return library(*COMMON)
