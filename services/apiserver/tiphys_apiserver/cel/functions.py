"""Kubernetes' functions for CEL, one table. A method is a function whose first argument is what stands before the dot.

Values that CEL has no type for (quantities, addresses, URLs) are maps with one key that names the type.
Source: apiserver pkg/cel/library, and cel-go ext/strings and ext/sets.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, urlsplit

from tiphys_apimachinery import validation
from tiphys_apimachinery.quantity import Quantity, QuantityError

_QUANTITY, _IP, _CIDR, _URL, _FORMAT = "@quantity", "@ip", "@cidr", "@url", "@format"


def _held(value: Any, kind: str) -> Any:
    if not isinstance(value, dict) or kind not in value:
        raise TypeError("no such overload")
    return value[kind]


# -- text


def _substring(text: str, start: int, end: int | None = None) -> str:
    stop = len(text) if end is None else end
    if not 0 <= start <= stop <= len(text):
        raise ValueError(f"index out of range: {start}")
    return text[start:stop]


def _char_at(text: str, index: int) -> str:
    if not 0 <= index <= len(text):
        raise ValueError(f"index out of range: {index}")
    return text[index : index + 1]


def _index_of(value: Any, item: Any, start: int = 0) -> int:
    if isinstance(value, str):
        return value.find(item, start)
    return list(value).index(item) if item in value else -1


def _last_index_of(value: Any, item: Any) -> int:
    if isinstance(value, str):
        return value.rfind(item)
    found = [place for place, other in enumerate(value) if other == item]
    return found[-1] if found else -1


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    return text.replace(old, new, count)


def _split(text: str, separator: str, count: int = -1) -> list[str]:
    if count == 0:
        return []
    if not separator:
        return list(text)
    return text.split(separator, count - 1) if count > 0 else text.split(separator)


def _join(parts: list[str], separator: str = "") -> str:
    return separator.join(parts)


def _find(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    return found[0] if found else ""


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = [match[0] for match in re.finditer(pattern, text)]
    return found if limit < 0 else found[:limit]


def _format(template: str, values: list[Any]) -> str:
    parts = iter(values)

    def one(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        value = next(parts, None)
        if match[2] == "s":
            return value if isinstance(value, str) else _shown(value)
        return f"%{match[1] or ''}{match[2]}" % value

    return re.sub(r"%(?:%|(\.[0-9]+)?([sdfexXob]))", one, template)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(_shown(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_shown(key)}: {_shown(item)}" for key, item in value.items()) + "}"
    return str(value)


# -- lists


def _is_sorted(values: list[Any]) -> bool:
    return all(one <= other for one, other in pairwise(values))


def _slice(values: list[Any], start: int, end: int) -> list[Any]:
    return values[start:end]


def _distinct(values: list[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def _flatten(values: list[Any], depth: int = 1) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found += _flatten(value, depth - 1) if isinstance(value, list) and depth > 0 else [value]
    return found


def _sets_contains(one: list[Any], other: list[Any]) -> bool:
    return all(item in one for item in other)


# -- quantities


def _quantity(text: str) -> dict[str, str]:
    Quantity.parse(text)
    return {_QUANTITY: text}


def _is_quantity(text: str) -> bool:
    try:
        Quantity.parse(text)
    except QuantityError:
        return False
    return True


def _amount(value: Any) -> Quantity:
    if isinstance(value, int):
        return Quantity.of(value)
    return Quantity.parse(_held(value, _QUANTITY))


def _compare(one: Any, other: Any) -> int:
    left, right = _amount(one), _amount(other)
    return (left > right) - (left < right)


def _combined(sign: int) -> Callable[[Any, Any], Any]:
    def combine(one: Any, other: Any) -> Any:
        left, right = _amount(one), _amount(other)
        return {_QUANTITY: str(left + right if sign > 0 else left - right)}

    return combine


def _sign(value: Any) -> int:
    nanos = _amount(value).nanos
    return (nanos > 0) - (nanos < 0)


def _is_integer(value: Any) -> bool:
    return _amount(value).nanos % 10**9 == 0


def _as_integer(value: Any) -> int:
    if not _is_integer(value):
        raise ValueError("cannot convert value to integer")
    return _amount(value).nanos // 10**9


def _as_float(value: Any) -> float:
    return float(Fraction(_amount(value).nanos, 10**9))


# -- addresses


def _ip(value: Any) -> dict[str, str]:
    if isinstance(value, dict):
        return {_IP: str(ipaddress.ip_interface(_held(value, _CIDR)).ip)}
    return {_IP: str(ipaddress.ip_address(value))}


def _is_ip(value: Any) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _cidr(text: str) -> dict[str, str]:
    ipaddress.ip_interface(text)
    if "/" not in text:
        raise ValueError(f"CIDR {text!r} has no prefix")
    return {_CIDR: text}


def _is_cidr(text: str) -> bool:
    try:
        _cidr(text)
    except ValueError:
        return False
    return True


def _address(value: Any) -> Any:
    return ipaddress.ip_address(_held(value, _IP) if isinstance(value, dict) else value)


def _network(value: Any) -> Any:
    return ipaddress.ip_network(_held(value, _CIDR) if isinstance(value, dict) else value, strict=False)


def _contains_ip(cidr: Any, address: Any) -> bool:
    return _address(address) in _network(cidr)


def _contains_cidr(cidr: Any, other: Any) -> bool:
    one, two = _network(cidr), _network(other)
    return bool(one.version == two.version and two.subnet_of(one))


def _of_address(name: str) -> Callable[[Any], bool]:
    return lambda value: bool(getattr(_address(value), name))


def _family(value: Any) -> int:
    return int(_address(value).version)


def _is_canonical_ip(text: str) -> bool:
    return str(ipaddress.ip_address(text)) == text


def _masked(value: Any) -> dict[str, str]:
    return {_CIDR: str(_network(value))}


def _prefix_length(value: Any) -> int:
    return int(_network(value).prefixlen)


# -- URLs


def _url(text: str) -> dict[str, str]:
    if not _is_url(text):
        raise ValueError(f"URL parse error during conversion from string: {text}")
    return {_URL: text}


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool((parts.scheme and parts.netloc) or text.startswith("/"))


def _parts(value: Any) -> SplitResult:
    return urlsplit(str(_held(value, _URL)))


# -- names


def _named_format(name: str) -> Callable[[], dict[str, str]]:
    return lambda: {_FORMAT: name}


_FORMATS: Final[Mapping[str, Callable[[str], list[str]]]] = {
    "dns1123Label": validation.is_dns1123_label,
    "dns1123Subdomain": validation.is_dns1123_subdomain,
    "dns1035Label": validation.is_dns1035_label,
    "qualifiedName": validation.is_qualified_name,
    "labelValue": validation.is_label_value,
}


def _validate(kind: Any, text: str) -> list[str]:
    """What is wrong with the text; empty where nothing is. (cel-go gives an optional instead.)"""
    return list(_FORMATS[_held(kind, _FORMAT)](text))


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "charAt": _char_at,
    "indexOf": _index_of,
    "lastIndexOf": _last_index_of,
    "lowerAscii": str.lower,
    "upperAscii": str.upper,
    "replace": _replace,
    "split": _split,
    "join": _join,
    "substring": _substring,
    "trim": str.strip,
    "reverse": lambda value: value[::-1],
    "find": _find,
    "findAll": _find_all,
    "format": _format,
    "isSorted": _is_sorted,
    "sum": sum,
    "min": lambda values: min(values),
    "max": lambda values: max(values),
    "slice": _slice,
    "distinct": _distinct,
    "flatten": _flatten,
    "sets.contains": _sets_contains,
    "sets.equivalent": lambda one, other: _sets_contains(one, other) and _sets_contains(other, one),
    "sets.intersects": lambda one, other: any(item in one for item in other),
    "math.greatest": lambda *values: max(values[0] if isinstance(values[0], list) else values),
    "math.least": lambda *values: min(values[0] if isinstance(values[0], list) else values),
    "quantity": _quantity,
    "isQuantity": _is_quantity,
    "sign": _sign,
    "isInteger": _is_integer,
    "asInteger": _as_integer,
    "asApproximateFloat": _as_float,
    "add": _combined(1),
    "sub": _combined(-1),
    "isLessThan": lambda one, other: _compare(one, other) < 0,
    "isGreaterThan": lambda one, other: _compare(one, other) > 0,
    "compareTo": _compare,
    "ip": _ip,
    "isIP": _is_ip,
    "ip.isCanonical": _is_canonical_ip,
    "family": _family,
    "isUnspecified": _of_address("is_unspecified"),
    "isLoopback": _of_address("is_loopback"),
    "isLinkLocalMulticast": lambda value: _address(value).is_multicast and _address(value).is_link_local,
    "isLinkLocalUnicast": lambda value: _address(value).is_link_local and not _address(value).is_multicast,
    "isGlobalUnicast": lambda value: (
        not any(
            getattr(_address(value), name)
            for name in ("is_unspecified", "is_loopback", "is_multicast", "is_link_local")
        )
    ),
    "cidr": _cidr,
    "isCIDR": _is_cidr,
    "containsIP": _contains_ip,
    "containsCIDR": _contains_cidr,
    "prefixLength": _prefix_length,
    "masked": _masked,
    "url": _url,
    "isURL": _is_url,
    "getScheme": lambda value: _parts(value).scheme,
    "getHost": lambda value: _parts(value).netloc.rpartition("@")[2],
    "getHostname": lambda value: _parts(value).hostname or "",
    "getPort": lambda value: str(_parts(value).port or ""),
    "getEscapedPath": lambda value: _parts(value).path,
    "getQuery": lambda value: parse_qs(_parts(value).query, keep_blank_values=True),
    **{f"format.{name}": _named_format(name) for name in _FORMATS},
    "validate": _validate,
}
