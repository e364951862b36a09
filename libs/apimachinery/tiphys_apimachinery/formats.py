"""Text formats by name, with the messages of Kubernetes.

Each checker takes a value and returns what is wrong with it, nothing when it is right; the caller
puts the field's path before it. `checker(name)` finds one by the name that a schema's `format`
option carries. Source of rules and words: apimachinery pkg/util/validation.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

Checker = Callable[[str], list[str]]

LABEL_MAX: Final = 63
SUBDOMAIN_MAX: Final = 253
QUALIFIED_NAME_MAX: Final = 63
LABEL_VALUE_MAX: Final = 63
PORT_NAME_MAX: Final = 15
CONFIG_KEY_MAX: Final = 253
ANNOTATIONS_MAX_BYTES: Final = 256 * 1024
# Of a qualified name with its prefix and the slash.
_LONGEST_NAME: Final = SUBDOMAIN_MAX + 1 + QUALIFIED_NAME_MAX

_LABEL: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"
_WILDCARD: Final = rf"\*\.{_SUBDOMAIN}"
_DNS1035: Final = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED: Final = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE: Final = rf"({_QUALIFIED})?"
_PERCENT: Final = r"[0-9]+%"
_CONFIG_KEY: Final = r"[-._a-zA-Z0-9]+"
_ENV_NAME: Final = r"[ -<>-~]+"
_C_IDENTIFIER: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_HTTP_HEADER: Final = r"[-A-Za-z0-9]+"
_UUID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

_ALPHANUMERIC_ENDS: Final = "and must start and end with an alphanumeric character"
_LABEL_TEXT: Final = (
    f"a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', {_ALPHANUMERIC_ENDS}"
)
_SUBDOMAIN_TEXT: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    + _ALPHANUMERIC_ENDS
)
_WILDCARD_TEXT: Final = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must"
    " consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
)
_DNS1035_TEXT: Final = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an"
    " alphabetic character, and end with an alphanumeric character"
)
_QUALIFIED_TEXT: Final = f"must consist of alphanumeric characters, '-', '_' or '.', {_ALPHANUMERIC_ENDS}"
_LABEL_VALUE_TEXT: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.',"
    f" {_ALPHANUMERIC_ENDS}"
)
_CONFIG_KEY_TEXT: Final = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
_HTTP_HEADER_TEXT: Final = "a valid HTTP header must consist of alphanumeric characters or '-'"
_ENV_NAME_TEXT: Final = (
    "a valid environment variable name must consist only of printable ASCII characters other than '='"
)
_PERCENT_TEXT: Final = "a valid percent string must be a numeric string followed by an ending '%'"
_C_IDENTIFIER_TEXT: Final = (
    "a valid C identifier must start with alphabetic character or '_', followed by a string of"
    " alphanumeric characters or '_'"
)

_LABEL_RE: Final = re.compile(_LABEL)
_SUBDOMAIN_RE: Final = re.compile(_SUBDOMAIN)
_WILDCARD_RE: Final = re.compile(_WILDCARD)
_DNS1035_RE: Final = re.compile(_DNS1035)
_QUALIFIED_RE: Final = re.compile(_QUALIFIED)
_LABEL_VALUE_RE: Final = re.compile(_LABEL_VALUE)
_PERCENT_RE: Final = re.compile(_PERCENT)
_CONFIG_KEY_RE: Final = re.compile(_CONFIG_KEY)
_ENV_NAME_RE: Final = re.compile(_ENV_NAME)
_C_IDENTIFIER_RE: Final = re.compile(_C_IDENTIFIER)
_HTTP_HEADER_RE: Final = re.compile(_HTTP_HEADER)
_UUID_RE: Final = re.compile(_UUID)


def too_long_text(max_bytes: int) -> str:
    """Message for text over max_bytes."""
    return f"must be no more than {max_bytes} bytes"


def range_text(low: int, high: int) -> str:
    """Message for a number outside low to high."""
    return f"must be between {low} and {high}, inclusive"


def pattern_text(message: str, pattern: str, *examples: str) -> str:
    """Message for text that does not match the pattern, with examples of what would."""
    if not examples:
        return f"{message} (regex used for validation is '{pattern}')"
    listed = " or ".join(f"'{example}', " for example in examples)
    return f"{message} (e.g. {listed}regex used for validation is '{pattern}')"


def is_dns1123_label(value: str) -> list[str]:
    """Checks a name of one DNS label, such as a namespace's."""
    errors = [too_long_text(LABEL_MAX)] if len(value) > LABEL_MAX else []
    if _LABEL_RE.fullmatch(value) is None:
        errors.append(pattern_text(_LABEL_TEXT, _LABEL, "my-name", "123-abc"))
    return errors


def is_dns1123_subdomain(value: str) -> list[str]:
    """Checks a dotted DNS name, which most objects' names are."""
    errors = [too_long_text(SUBDOMAIN_MAX)] if len(value) > SUBDOMAIN_MAX else []
    if _SUBDOMAIN_RE.fullmatch(value) is None:
        errors.append(pattern_text(_SUBDOMAIN_TEXT, _SUBDOMAIN, "example.com"))
    return errors


def is_wildcard_dns1123_subdomain(value: str) -> list[str]:
    """Checks a DNS name that begins with an asterisk label, as an ingress rule's host may."""
    errors = [too_long_text(SUBDOMAIN_MAX)] if len(value) > SUBDOMAIN_MAX else []
    if _WILDCARD_RE.fullmatch(value) is None:
        errors.append(pattern_text(_WILDCARD_TEXT, _WILDCARD, "*.example.com"))
    return errors


def is_dns1035_label(value: str) -> list[str]:
    """Checks a DNS label that begins with a letter, such as a service's name."""
    errors = [too_long_text(LABEL_MAX)] if len(value) > LABEL_MAX else []
    if _DNS1035_RE.fullmatch(value) is None:
        errors.append(pattern_text(_DNS1035_TEXT, _DNS1035, "my-name", "abc-123"))
    return errors


def is_qualified_name(value: str) -> list[str]:
    """Checks a key of labels, annotations, taints and resources: a name with an optional DNS prefix."""
    # The same few keys come again and again; what is too long to be right is not worth keeping.
    return list(_known_name_faults(value) if len(value) <= _LONGEST_NAME else _name_faults(value))


def _name_faults(value: str) -> list[str]:
    parts = value.split("/")
    if len(parts) > 2:
        return [
            "a qualified name "
            + pattern_text(_QUALIFIED_TEXT, _QUALIFIED, "MyName", "my.name", "123-abc")
            + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ]
    errors: list[str] = []
    if len(parts) == 2:
        if not parts[0]:
            errors.append("prefix part must be non-empty")
        else:
            errors += [f"prefix part {text}" for text in is_dns1123_subdomain(parts[0])]
    name = parts[-1]
    if not name:
        errors.append("name part must be non-empty")
    elif len(name) > QUALIFIED_NAME_MAX:
        errors.append(f"name part {too_long_text(QUALIFIED_NAME_MAX)}")
    if _QUALIFIED_RE.fullmatch(name) is None:
        text = pattern_text(_QUALIFIED_TEXT, _QUALIFIED, "MyName", "my.name", "123-abc")
        errors.append(f"name part {text}")
    return errors


@functools.lru_cache(maxsize=4096)
def _known_name_faults(value: str) -> tuple[str, ...]:
    return tuple(_name_faults(value))


def is_label_value(value: str) -> list[str]:
    """Checks the value of a label; empty is right."""
    errors = [too_long_text(LABEL_VALUE_MAX)] if len(value) > LABEL_VALUE_MAX else []
    if _LABEL_VALUE_RE.fullmatch(value) is None:
        errors.append(pattern_text(_LABEL_VALUE_TEXT, _LABEL_VALUE, "MyValue", "my_value", "12345"))
    return errors


def is_port_number(value: int) -> list[str]:
    """Checks a port of TCP, UDP or SCTP."""
    return [] if 1 <= value <= 65535 else [range_text(1, 65535)]


def is_port_name(value: str) -> list[str]:
    """Checks a port's name: an IANA service name of at most 15 characters."""
    errors = [too_long_text(PORT_NAME_MAX)] if len(value) > PORT_NAME_MAX else []
    if re.fullmatch(r"[-a-z0-9]+", value) is None:
        errors.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if re.search(r"[a-z]", value) is None:
        errors.append("must contain at least one letter (a-z)")
    if "--" in value:
        errors.append("must not contain consecutive hyphens")
    if value and (value[0] == "-" or value[-1] == "-"):
        errors.append("must not begin or end with a hyphen")
    return errors


def is_ip(value: str) -> list[str]:
    """Checks an IPv4 or IPv6 address without zone."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    return [] if "%" not in value else ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]


def is_cidr(value: str) -> list[str]:
    """Checks an address with a prefix length; bits behind the prefix are let through."""
    try:
        ipaddress.ip_interface(value)
    except ValueError:
        return ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]
    prefix = value.rpartition("/")
    if not prefix[1] or not prefix[2].isdecimal() or "%" in value:
        return ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]
    return []


def is_percent(value: str) -> list[str]:
    """Checks a whole percentage such as 25%."""
    return [] if _PERCENT_RE.fullmatch(value) else [pattern_text(_PERCENT_TEXT, _PERCENT, "1%", "93%")]


def is_config_map_key(value: str) -> list[str]:
    """Checks a key of a ConfigMap or Secret, which may become a file name."""
    errors = [too_long_text(CONFIG_KEY_MAX)] if len(value) > CONFIG_KEY_MAX else []
    if _CONFIG_KEY_RE.fullmatch(value) is None:
        errors.append(pattern_text(_CONFIG_KEY_TEXT, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"))
    if value == ".":
        errors.append("must not be '.'")
    elif value == "..":
        errors.append("must not be '..'")
    elif value.startswith(".."):
        errors.append("must not start with '..'")
    return errors


def is_environment_name(value: str) -> list[str]:
    """Checks the name of an environment variable: printable ASCII without the equals sign."""
    return [] if _ENV_NAME_RE.fullmatch(value) else [_ENV_NAME_TEXT]


def is_c_identifier(value: str) -> list[str]:
    """Checks a name as C takes it."""
    if _C_IDENTIFIER_RE.fullmatch(value):
        return []
    return [pattern_text(_C_IDENTIFIER_TEXT, _C_IDENTIFIER, "my_name", "MY_NAME", "MyName")]


def is_http_header_name(value: str) -> list[str]:
    """Checks the name of an HTTP header."""
    if _HTTP_HEADER_RE.fullmatch(value):
        return []
    return [pattern_text(_HTTP_HEADER_TEXT, _HTTP_HEADER, "X-Header-Name")]


def is_path_segment(value: str) -> list[str]:
    """Checks a name that may stand in a URL path, as RBAC names are."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{bad}'" for bad in "/%" if bad in value]


def is_image_reference(value: str) -> list[str]:
    """Checks that an image is named and has no space around it; the runtime judges the rest."""
    if not value:
        return ["must be non-empty"]
    return ["must not have leading or trailing whitespace"] if value.strip() != value else []


def is_absolute_path(value: str) -> list[str]:
    """Checks a path that begins at the root."""
    return [] if value.startswith("/") else ["must be an absolute path"]


def is_descending_free_path(value: str) -> list[str]:
    """Checks a path without a step upwards."""
    return ["must not contain '..'"] if ".." in value.split("/") else []


def is_uuid(value: str) -> list[str]:
    """Checks a lower-case UUID."""
    return [] if _UUID_RE.fullmatch(value) else ["must be a valid UUID"]


def is_url(value: str) -> list[str]:
    """Checks an absolute URL with a host."""
    parts = urlsplit(value)
    return [] if parts.scheme and parts.netloc else ["must be a valid URL"]


def _is_port_text(value: str) -> list[str]:
    return is_port_number(int(value)) if value.isdecimal() else [range_text(1, 65535)]


_CHECKERS: Final[dict[str, Checker]] = {
    "dns1123Label": is_dns1123_label,
    "dns1123Subdomain": is_dns1123_subdomain,
    "wildcardDns1123Subdomain": is_wildcard_dns1123_subdomain,
    "dns1035Label": is_dns1035_label,
    "qualifiedName": is_qualified_name,
    "labelKey": is_qualified_name,
    "labelValue": is_label_value,
    "port": _is_port_text,
    "portName": is_port_name,
    "ip": is_ip,
    "cidr": is_cidr,
    "percent": is_percent,
    "configMapKey": is_config_map_key,
    "cIdentifierEnv": is_environment_name,
    "cIdentifier": is_c_identifier,
    "httpHeaderName": is_http_header_name,
    "pathSegment": is_path_segment,
    "imageRef": is_image_reference,
    "absolutePath": is_absolute_path,
    "relativePath": is_descending_free_path,
    "uuid": is_uuid,
    "url": is_url,
}


def checker(name: str) -> Checker:
    """The checker of a format; raises KeyError for a name that no format has."""
    return _CHECKERS[name]


def formats() -> frozenset[str]:
    """Names of all formats."""
    return frozenset(_CHECKERS)
