"""Checks what the schema says about fields: required, enums, ranges, formats, immutability.

Compiled per message from the descriptors; rules across fields belong to the kind's strategy. The
checkers of text formats are offered here too, so that a strategy needs this one module.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.message import Message

from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.field_error import FieldError
from tiphys_apimachinery.formats import (
    ANNOTATIONS_MAX_BYTES,
    CONFIG_KEY_MAX,
    LABEL_MAX,
    LABEL_VALUE_MAX,
    PORT_NAME_MAX,
    QUALIFIED_NAME_MAX,
    SUBDOMAIN_MAX,
    Checker,
    checker,
    formats,
    is_absolute_path,
    is_c_identifier,
    is_cidr,
    is_config_map_key,
    is_descending_free_path,
    is_dns1035_label,
    is_dns1123_label,
    is_dns1123_subdomain,
    is_environment_name,
    is_http_header_name,
    is_image_reference,
    is_ip,
    is_label_value,
    is_path_segment,
    is_percent,
    is_port_name,
    is_port_number,
    is_qualified_name,
    is_url,
    is_uuid,
    is_wildcard_dns1123_subdomain,
    pattern_text,
    range_text,
    too_long_text,
)
from tiphys_apimachinery.schema import Field, Kind, descriptor_of
from tiphys_apimachinery.walkers import WalkerCompiler, read

__all__ = [
    "ANNOTATIONS_MAX_BYTES",
    "CONFIG_KEY_MAX",
    "LABEL_MAX",
    "LABEL_VALUE_MAX",
    "PORT_NAME_MAX",
    "QUALIFIED_NAME_MAX",
    "SUBDOMAIN_MAX",
    "Checker",
    "checker",
    "formats",
    "is_absolute_path",
    "is_c_identifier",
    "is_cidr",
    "is_config_map_key",
    "is_descending_free_path",
    "is_dns1035_label",
    "is_dns1123_label",
    "is_dns1123_subdomain",
    "is_environment_name",
    "is_http_header_name",
    "is_image_reference",
    "is_ip",
    "is_label_value",
    "is_path_segment",
    "is_percent",
    "is_port_name",
    "is_port_number",
    "is_qualified_name",
    "is_url",
    "is_uuid",
    "is_wildcard_dns1123_subdomain",
    "pattern_text",
    "range_text",
    "too_long_text",
    "validate_fields",
    "validate_immutable",
    "validate_status",
]

IMMUTABLE_TEXT: Final = "field is immutable"


def validate_fields(message: Message) -> list[FieldError]:
    """What is wrong with single fields of an object, status and metadata left out, in schema order.

    Metadata has rules that depend on the kind, and status is checked when it is written.
    """
    findings: list[_Finding] = []
    _validators().walker(descriptor_of(message))(message, None, findings)
    return [finding.error() for finding in findings]


def validate_status(message: Message) -> list[FieldError]:
    """What is wrong with single fields of an object's status."""
    status = descriptor_of(message).fields_by_name.get("status")
    if status is None or status.message_type is None:
        return []
    findings: list[_Finding] = []
    _validators().walker(status.message_type)(getattr(message, "status"), (None, "status", None), findings)  # noqa: B009
    return [finding.error() for finding in findings]


def validate_immutable(new: Message, old: Message) -> list[FieldError]:
    """Fields that changed although the schema says immutable; items of lists and maps are not looked into."""
    findings: list[_Finding] = []
    _comparers().walker(descriptor_of(new))(new, old, None, findings)
    return [finding.error() for finding in findings]


# A path is (path before, member, index or key or None): made at every step of a walk, where joining
# text would cost more than the checks; turned into text only when there is something to report.
_Path = tuple[Any, str, Any]


class _Finding:
    """A field error whose path is not yet text."""

    __slots__ = ("_detail", "_kind", "_path", "_value")

    def __init__(self, kind: str, path: _Path, value: Any, detail: Any) -> None:
        self._kind = kind
        self._path = path
        self._value = value
        self._detail = detail

    def error(self) -> FieldError:
        path = "".join(_path_parts(self._path)).removeprefix(".")
        if self._kind == "required":
            return FieldError.required(path)
        if self._kind == "enum":
            return FieldError.not_supported(path, self._value, self._detail)
        value = json_codec.to_json(self._value) if isinstance(self._value, Message) else self._value
        return FieldError.invalid(path, value, self._detail)


def _path_parts(path: _Path | None) -> Iterator[str]:
    if path is None:
        return
    before, member, key = path
    yield from _path_parts(before)
    yield f".{member}"
    if key is not None:
        yield f"[{key}]"


@functools.cache
def _validators() -> _ValidationCompiler:
    return _ValidationCompiler()


@functools.cache
def _comparers() -> _ImmutabilityCompiler:
    return _ImmutabilityCompiler()


class _ValidationCompiler(WalkerCompiler):
    arguments = ", p, e"

    def __init__(self) -> None:
        super().__init__()
        self.namespace.update(_required=_required, _enum=_enum, _range=_range, _format=_format, _share=_share)

    def concerns(self, field: Field) -> bool:
        """Metadata and status of an object are left out."""
        return field.name not in ("metadata", "status") or field.kind is not Kind.STRUCT

    def union_call(self) -> str:
        """Parts take their path and the list of findings."""
        return "w(v, (p, n, None), e)"

    def own_lines(self, field: Field, owner: str) -> list[str]:
        options = field.options
        value, has = read(owner, field), f"{owner}.HasField({field.name!r})"
        path = f"(p, {field.json!r}, None)"
        checks = self._value_checks(field)
        lines: list[str] = []
        missing = self._missing(field, value, has)
        if options.required and missing:
            lines.append(f"if {missing}: _required(e, {path})")
        if not checks:
            return lines
        if field.is_list:
            return [*lines, f"for i, x in enumerate({value}):", f"    q = (p, {field.json!r}, i)", *_indent(checks)]
        if field.is_map:
            return [*lines, f"for i, x in {value}.items():", f"    q = (p, {field.json!r}, i)", *_indent(checks)]
        present = self._present(field, value, has)
        if not present:
            return [*lines, f"x = {value}; q = {path}", *checks]
        return [*lines, f"if {present}:", f"    x = {value}; q = {path}", *_indent(checks)]

    def _missing(self, field: Field, value: str, has: str) -> str:
        """Condition under which a required field counts as absent; empty where it never does."""
        if not field.is_singular or field.kind in (Kind.STRING, Kind.BYTES):
            return f"not {value}"
        if field.is_pointer or field.kind in (Kind.INT_OR_STRING, Kind.RAW, Kind.TIME, Kind.MICRO_TIME, Kind.QUANTITY):
            return f"not {has}"
        if field.kind is Kind.INT and field.options.minimum > 0:
            return f"not {value}"
        if field.kind is Kind.STRUCT and field.message is not None and not self._is_needed(field.message):
            return f"not {value}.ByteSize()"
        # Of a struct with required parts the parts are reported, as Kubernetes does.
        return ""

    def _present(self, field: Field, value: str, has: str) -> str:
        """Condition under which a field's value is checked at all."""
        if field.kind is Kind.STRING and field.is_pointer and field.options.HasField("default"):
            # A name that is empty by default is right when it is empty, as of a slice's port.
            return value if not field.options.default else has
        if field.is_pointer or field.message is not None:
            return has
        if field.kind is Kind.STRING:
            return value
        if field.kind is Kind.INT and (field.options.required or not field.is_always_written):
            # Zero is absent, which is reported, if it is wrong, as missing.
            return value
        return ""

    def _value_checks(self, field: Field) -> list[str]:
        """Lines that check one value `x` at path `q`."""
        options, lines = field.options, []
        if options.enum:
            name = f"n_{abs(hash(tuple(options.enum)))}"
            self.namespace[name] = frozenset(options.enum)
            lines.append(f"if x not in {name}: _enum(e, q, x, {name})")
        if options.HasField("minimum") or options.HasField("maximum"):
            low = options.minimum if options.HasField("minimum") else None
            high = options.maximum if options.HasField("maximum") else None
            conditions = [f"x < {low}"] if low is not None else []
            conditions += [f"x > {high}"] if high is not None else []
            lines.append(f"if {' or '.join(conditions)}: _range(e, q, x, low={low}, high={high})")
        if options.format == "percentOrInt":
            lines.append("_share(e, q, x)")
        elif options.format:
            name = f"c_{options.format}"
            self.namespace[name] = checker(options.format)
            lines.append(f"t = {name}(x)")
            lines.append("if t: _format(e, q, x, t)")
        return lines

    def descend(self, field: Field, owner: str, call: str) -> list[str]:
        value, has = read(owner, field), f"{owner}.HasField({field.name!r})"
        if field.is_list:
            return [f"for i, x in enumerate({value}): {call}(x, (p, {field.json!r}, i), e)"]
        if field.is_map:
            return [f"v = {value}", f"for i in v: {call}(v[i], (p, {field.json!r}, i), e)"]
        line = f"{call}({value}, (p, {field.json!r}, None), e)"
        if field.is_pointer or not (field.is_always_written or field.options.required or field.json == "spec"):
            return [f"if {has}: {line}"]
        return [line]


class _ImmutabilityCompiler(WalkerCompiler):
    arguments = ", o, p, e"

    def __init__(self) -> None:
        super().__init__()
        self.namespace.update(_changed=_changed)

    def concerns(self, field: Field) -> bool:
        """Parts in lists and maps come and go, so only single parts are walked."""
        return field.options.immutable or field.is_singular

    def own_lines(self, field: Field, owner: str) -> list[str]:
        if not field.options.immutable:
            return []
        new, old = read(owner, field), read(_old(owner), field)
        differs = f"{new} != {old}"
        if field.is_pointer:
            has = f"HasField({field.name!r})"
            differs = f"{owner}.{has} != {_old(owner)}.{has} or {differs}"
        return [f"if {differs}: _changed(e, (p, {field.json!r}, None), {new})"]

    def descend(self, field: Field, owner: str, call: str) -> list[str]:
        if not field.is_singular or field.options.immutable:
            return []
        has = f"HasField({field.name!r})"
        new, old = read(owner, field), read(_old(owner), field)
        line = f"{call}({new}, {old}, (p, {field.json!r}, None), e)"
        # What appears or goes as a whole is a matter of the part itself, not of its members.
        return [f"if {owner}.{has} and {_old(owner)}.{has}: {line}"] if field.is_pointer else [line]


def _old(owner: str) -> str:
    """Expression for the old side of a message expression; inline parts are read from their owner."""
    return "o" if owner == "m" else f"o.{owner.removeprefix('i_')}"


def _indent(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _required(findings: list[_Finding], path: _Path) -> None:
    findings.append(_Finding("required", path, "", ""))


def _enum(findings: list[_Finding], path: _Path, value: str, allowed: frozenset[str]) -> None:
    findings.append(_Finding("enum", path, value, sorted(allowed)))


def _range(findings: list[_Finding], path: _Path, value: int, *, low: int | None, high: int | None) -> None:
    if low is not None and high is not None:
        text = range_text(low, high)
    elif low is not None:
        text = f"must be greater than or equal to {low}"
    else:
        text = f"must be less than or equal to {high}"
    findings.append(_Finding("invalid", path, value, text))


def _format(findings: list[_Finding], path: _Path, value: str, texts: list[str]) -> None:
    findings.extend(_Finding("invalid", path, value, text) for text in texts)


def _share(findings: list[_Finding], path: _Path, value: Any) -> None:
    """A count or a percentage, as of pods that may be missing."""
    if value.type:
        if is_percent(value.strVal):
            findings.append(_Finding("invalid", path, value.strVal, "must be an integer or percentage (e.g '5%')"))
    elif value.intVal < 0:
        findings.append(_Finding("invalid", path, value.intVal, "must be greater than or equal to 0"))


def _changed(findings: list[_Finding], path: _Path, value: Any) -> None:
    shown = value
    if not isinstance(value, (Message, str, int, float, bytes)):
        shown = _plain(value)
    findings.append(_Finding("invalid", path, shown, IMMUTABLE_TEXT))


def _plain(value: Any) -> Any:
    """A repeated or map field as plain values."""
    if hasattr(value, "items"):
        return {key: _plain_item(item) for key, item in value.items()}
    return [_plain_item(item) for item in value]


def _plain_item(value: Any) -> Any:
    return json_codec.to_json(value, with_type_meta=False) if isinstance(value, Message) else value
