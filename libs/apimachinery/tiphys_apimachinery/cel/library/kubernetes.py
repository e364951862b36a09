"""What Kubernetes adds: quantities, addresses, URLs, formats of names, versions. Source: apiserver pkg/cel/library."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, urlsplit

from tiphys_apimachinery import validation
from tiphys_apimachinery.cel.library.standard import half
from tiphys_apimachinery.cel.overloads import Entry
from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.cel.values import NONE, NamedFormat, Optional, SemVer, Url, some
from tiphys_apimachinery.quantity import Quantity, QuantityError
from tiphys_apimachinery.text_formats import FORMATS

_NANO: Final = 10**9


def _can(work: Callable[..., Any]) -> Callable[..., bool]:
    """Whether something can be read."""

    def test(*args: Any) -> bool:
        try:
            work(*args)
        except (CelError, ValueError):
            return False
        return True

    return test


# -- quantities


def _quantity(text: str) -> Quantity:
    try:
        return Quantity.parse(text)
    except QuantityError as err:
        raise CelError(str(err)) from err


def _amount(value: Any) -> Quantity:
    return Quantity.of(value) if isinstance(value, int) else value


def _compare(one: Any, other: Any) -> int:
    return int(one > other) - int(one < other)


def _is_integer(value: Quantity) -> bool:
    return value.nanos % _NANO == 0 and -(2**63) <= value.nanos // _NANO < 2**63


def _as_integer(value: Quantity) -> int:
    if not _is_integer(value):
        raise CelError("cannot convert value to integer")
    return value.nanos // _NANO


# -- addresses


def _ip(text: str) -> Any:
    # Neither zones nor IPv4 within IPv6 are taken, as upstream takes none.
    try:
        found = ipaddress.ip_address(text)
    except ValueError as err:
        raise CelError(f'IP Address "{text}" parse error during conversion from string: {err}') from err
    if "%" in text:
        raise CelError(f'IP Address "{text}" with zone value is not allowed')
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        raise CelError(f'IPv4-mapped IPv6 address "{text}" is not allowed')
    return found


def _cidr(text: str) -> Any:
    address, slash, bits = text.partition("/")
    try:
        if not slash or not bits.isdecimal():
            raise ValueError("no prefix length")
        _ip(address)
        return ipaddress.ip_interface(text)
    except (ValueError, CelError) as err:
        raise CelError(f'network address parse error during conversion from string: "{text}": {err}') from err


def _is_cidr(text: str) -> bool:
    return _can(_cidr)(text)


def _address(value: Any) -> Any:
    return _ip(value) if isinstance(value, str) else value


def _network(value: Any) -> Any:
    return (_cidr(value) if isinstance(value, str) else value).network


def _contains_cidr(cidr: Any, other: Any) -> bool:
    one, two = _network(cidr), _network(other)
    return bool(one.version == two.version and two.subnet_of(one))


def _is_global(value: Any) -> bool:
    broadcast = value == ipaddress.IPv4Address("255.255.255.255")
    return not (value.is_unspecified or value.is_loopback or value.is_multicast or value.is_link_local or broadcast)


def _is_link_multicast(value: Any) -> bool:
    if value.version == 4:
        return bool(value in ipaddress.ip_network("224.0.0.0/24"))
    return bool(value.packed[0] == 0xFF and value.packed[1] & 0x0F == 0x02)


# -- URLs


def _url(text: str) -> Url:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as err:
        raise CelError(f"URL parse error during conversion from string: {text}: {err}") from err
    del port
    has_control = any(ord(char) < 0x20 or char == " " for char in text)
    if has_control or not (parts.scheme or text.startswith("/")):
        raise CelError(f"URL parse error during conversion from string: {text}: invalid URI for request")
    return Url(text)


def _parts(value: Url) -> SplitResult:
    return urlsplit(value.text)


def _hostname(value: Url) -> str:
    host = _parts(value).netloc.rpartition("@")[2]
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


# -- formats of names


def _prefix_of(check: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    return lambda text: check(f"{text[:-1]}a" if text.endswith("-") else text)


def _by_schema(name: str, words: str) -> Callable[[str], list[str]]:
    return lambda text: [] if FORMATS[name](text) else [words]


_FORMATS: Final[Mapping[str, Callable[[str], list[str]]]] = {
    "dns1123Label": validation.is_dns1123_label,
    "dns1123Subdomain": validation.is_dns1123_subdomain,
    "dns1035Label": validation.is_dns1035_label,
    "qualifiedName": validation.is_qualified_name,
    "dns1123LabelPrefix": _prefix_of(validation.is_dns1123_label),
    "dns1123SubdomainPrefix": _prefix_of(validation.is_dns1123_subdomain),
    "dns1035LabelPrefix": _prefix_of(validation.is_dns1035_label),
    "labelValue": validation.is_label_value,
    "uri": lambda text: [] if _can(_url)(text) else ["not a valid URI"],
    "uuid": _by_schema("uuid", "does not match the UUID format"),
    "byte": _by_schema("byte", "invalid base64"),
    "date": lambda text: [] if re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", text) else ["invalid date"],
    "datetime": _by_schema("datetime", "invalid datetime"),
}


def _named(name: str) -> Optional:
    return some(NamedFormat(name)) if name in _FORMATS else NONE


def _constant(name: str) -> Callable[[], NamedFormat]:
    return lambda: NamedFormat(name)


def _validate(kind: NamedFormat, text: str) -> Optional:
    found = list(_FORMATS[kind.name](text))
    return some(found) if found else NONE


# -- semantic versions

_SEMVER: Final = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?", re.ASCII
)
_NUMBERS: Final = re.compile(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?((?:[-+].*)?)", re.ASCII)


def _semver(text: str, normalize: bool = False) -> SemVer:
    if normalize and (loose := _NUMBERS.fullmatch(text)) is not None:
        text = ".".join(str(int(part or 0)) for part in loose.groups()[:3]) + loose[4]
    match = _SEMVER.fullmatch(text)
    if match is None:
        raise CelError(f'Invalid character(s) found in version "{text}"')
    pre = tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in (match[4].split(".") if match[4] else ())
    )
    return SemVer(int(match[1]), int(match[2]), int(match[3]), pre)


def is_semver(text: str) -> bool:
    """Whether a text is a semantic version."""
    return _SEMVER.fullmatch(text) is not None


def _order(version: SemVer) -> tuple[Any, ...]:
    # A version with something behind the dash comes before the one without.
    return version.major, version.minor, version.patch, not version.pre, version.pre


ENTRIES: Final = (
    Entry("quantity(string): quantity", _quantity, half),
    Entry("isQuantity(string): bool", _can(_quantity), half),
    Entry("quantity.sign(): int", lambda value: _compare(value.nanos, 0)),
    Entry("quantity.isInteger(): bool", _is_integer),
    Entry("quantity.asInteger(): int", _as_integer),
    Entry("quantity.asApproximateFloat(): double", lambda value: float(Fraction(value.nanos, _NANO))),
    Entry("quantity.add(quantity|int): quantity", lambda one, other: one + _amount(other)),
    Entry("quantity.sub(quantity|int): quantity", lambda one, other: one - _amount(other)),
    Entry("quantity.isLessThan(quantity): bool", lambda one, other: one < other),
    Entry("quantity.isGreaterThan(quantity): bool", lambda one, other: one > other),
    Entry("quantity.compareTo(quantity): int", _compare),
    Entry("ip(string): ip", _ip, half),
    Entry("isIP(string): bool", _can(_ip), half),
    Entry(".ip.isCanonical(string): bool", lambda text: str(_ip(text)) == text, half),
    Entry("string(ip): string", str),
    Entry("string(cidr): string", str),
    Entry("ip.family(): int", lambda value: value.version),
    Entry("ip.isUnspecified(): bool", lambda value: value.is_unspecified),
    Entry("ip.isLoopback(): bool", lambda value: value.is_loopback),
    Entry("ip.isLinkLocalMulticast(): bool", _is_link_multicast),
    Entry("ip.isLinkLocalUnicast(): bool", lambda value: value.is_link_local),
    Entry("ip.isGlobalUnicast(): bool", _is_global),
    Entry("cidr(string): cidr", _cidr, half),
    Entry("isCIDR(string): bool", _is_cidr, half),
    Entry("cidr.ip(): ip", lambda value: value.ip),
    Entry("cidr.containsIP(ip|string): bool", lambda value, ip: _address(ip) in value.network),
    Entry("cidr.containsCIDR(cidr|string): bool", _contains_cidr),
    Entry("cidr.prefixLength(): int", lambda value: value.network.prefixlen),
    Entry("cidr.masked(): cidr", lambda value: ipaddress.ip_interface(value.network)),
    Entry("url(string): url", _url, half),
    Entry("isURL(string): bool", _can(_url), half),
    Entry("url.getScheme(): string", lambda value: _parts(value).scheme),
    Entry("url.getHost(): string", lambda value: _parts(value).netloc.rpartition("@")[2]),
    Entry("url.getHostname(): string", _hostname),
    Entry("url.getPort(): string", lambda value: str(_parts(value).port or "")),
    Entry("url.getEscapedPath(): string", lambda value: _parts(value).path),
    Entry("url.getQuery(): map", lambda value: parse_qs(_parts(value).query, keep_blank_values=True)),
    *(Entry(f".format.{name}(): format", _constant(name)) for name in _FORMATS),
    Entry(".format.named(string): optional", _named),
    Entry("format.validate(string): optional", _validate, lambda kind, text: len(text) // 10),
    Entry("semver(string): semver", _semver, half),
    Entry("semver(string, bool): semver", _semver, lambda text, _normal: len(text) // 10),
    Entry("isSemver(string): bool", _can(_semver), half),
    Entry("isSemver(string, bool): bool", _can(_semver), lambda text, _normal: len(text) // 10),
    Entry("semver.major(): int", lambda value: value.major),
    Entry("semver.minor(): int", lambda value: value.minor),
    Entry("semver.patch(): int", lambda value: value.patch),
    Entry("semver.isLessThan(semver): bool", lambda one, other: _order(one) < _order(other)),
    Entry("semver.isGreaterThan(semver): bool", lambda one, other: _order(one) > _order(other)),
    Entry("semver.compareTo(semver): int", lambda one, other: _compare(_order(one), _order(other))),
    # A key of a patch, with the characters that JSON pointers give a meaning escaped.
    Entry(".jsonpatch.escapeKey(string): string", lambda text: text.replace("~", "~0").replace("/", "~1"), half),
)
