"""cel-go's ext/strings and ext/encoders, and Kubernetes' regular expressions."""

from __future__ import annotations

import base64
import binascii
import datetime
import re
from collections.abc import Iterator
from typing import Any, Final

from tiphys_apimachinery.cel.library.patterns import compiled, match_cost
from tiphys_apimachinery.cel.library.standard import double_text, duration_text, half, timestamp_text
from tiphys_apimachinery.cel.overloads import Entry
from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.cel.values import CelType, Optional, no_overload, type_name

_CLAUSE: Final = re.compile(r"%(?:(%)|(?:\.([0-9]+))?([a-zA-Z]))")
_QUOTED: Final = {
    "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\", '"': '\\"',
}  # fmt: skip
_MAX_PRECISION: Final = 100
# What cel-go's trim takes for white space.
_SPACE: Final = " \t\n\r\v\f\u0085\u00a0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


def _char_at(text: str, at: int) -> str:
    if not 0 <= at <= len(text):
        raise CelError(f"index out of range: {at}")
    return text[at : at + 1]


def _index_of(text: str, part: str, start: int = 0) -> int:
    if not 0 <= start <= len(text):
        raise CelError(f"index out of range: {start}")
    return text.find(part, start)


def _last_index_of(text: str, part: str, last: int | None = None) -> int:
    if last is None:
        return text.rfind(part)
    if not 0 <= last <= len(text):
        raise CelError(f"index out of range: {last}")
    return text.rfind(part, 0, last + len(part))


def _substring(text: str, start: int, end: int | None = None) -> str:
    stop = len(text) if end is None else end
    if not 0 <= start <= len(text) or not 0 <= stop <= len(text):
        raise CelError(f"index out of range: {start if not 0 <= start <= len(text) else stop}")
    if start > stop:
        raise CelError(f"invalid substring range. start: {start}, end: {stop}")
    return text[start:stop]


def _split(text: str, separator: str, count: int = -1) -> list[str]:
    if count == 0:
        return []
    if not separator:
        pieces = list(text)
        return pieces if count < 0 or count >= len(pieces) else [*pieces[: count - 1], "".join(pieces[count - 1 :])]
    return text.split(separator, count - 1) if count > 0 else text.split(separator)


def _join(parts: list[Any], separator: str = "") -> str:
    for part in parts:
        if not isinstance(part, str):
            raise no_overload("join", parts)
    return separator.join(parts)


def _ascii(text: str, *, upper: bool) -> str:
    return "".join((char.upper() if upper else char.lower()) if char.isascii() else char for char in text)


def _find(text: str, pattern: str) -> str:
    found = compiled(pattern).search(text)
    return found.group() if found is not None else ""


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found: list[str] = []
    for match in compiled(pattern).finditer(text):
        if 0 <= limit <= len(found):
            break
        found.append(match.group())
    return found


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as err:
        raise CelError(f"illegal base64 data: {err}") from err


def _format(template: str, values: list[Any]) -> str:
    given: Iterator[Any] = iter(values)
    at = 0
    pieces: list[str] = []
    for match in _CLAUSE.finditer(template):
        _no_percent(template[at : match.start()])
        pieces.append(template[at : match.start()])
        at = match.end()
        if match[1]:
            pieces.append("%")
            continue
        try:
            value = next(given)
        except StopIteration:
            raise CelError(f"index {len(values)} out of range") from None
        pieces.append(_formatted(match[3], match[2], value))
    _no_percent(template[at:])
    return "".join([*pieces, template[at:]])


def _no_percent(text: str) -> None:
    if "%" in text:
        raise CelError("could not parse formatting clause: unexpected end of string")


def _formatted(verb: str, precision: str | None, value: Any) -> str:
    digits = 6 if precision is None else int(precision)
    if digits > _MAX_PRECISION:
        raise CelError(f"precision of {digits} is beyond {_MAX_PRECISION}")
    if verb == "s":
        return _shown(value)
    if verb == "d" and isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    if verb in "fe" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return format(float(value), f".{digits}{verb}")
    if verb == "b" and isinstance(value, int):
        return format(int(value), "b")
    if verb == "o" and isinstance(value, int) and not isinstance(value, bool):
        return format(int(value), "o")
    if verb in "xX":
        if isinstance(value, (str, bytes)):
            text = (value.encode() if isinstance(value, str) else value).hex()
            return text.upper() if verb == "X" else text
        if isinstance(value, int) and not isinstance(value, bool):
            return format(int(value), verb)
    raise CelError(f"error during formatting: %{verb} does not take {type_name(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return double_text(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, datetime.datetime):
        return timestamp_text(value)
    if isinstance(value, datetime.timedelta):
        return duration_text(value)
    if isinstance(value, CelType):
        return value.name
    if isinstance(value, list):
        return f"[{', '.join(_shown(item) for item in value)}]"
    if isinstance(value, dict):
        pairs = sorted((_shown(key), _shown(item)) for key, item in value.items())
        return "{" + ", ".join(f"{key}: {item}" for key, item in pairs) + "}"
    if isinstance(value, Optional):
        return f"optional({_shown(value.value)})" if value.is_there else "optional.none()"
    return str(value)


def _format_cost(template: str, values: list[Any]) -> int:
    return len(template) // 10 + len(values)


def _joined_cost(parts: list[Any], *_rest: Any) -> int:
    return len(parts)


ENTRIES: Final = (
    Entry("string.charAt(int): string", _char_at),
    Entry("string.indexOf(string): int", _index_of, half),
    Entry("string.indexOf(string, int): int", _index_of, half),
    Entry("string.lastIndexOf(string): int", _last_index_of, half),
    Entry("string.lastIndexOf(string, int): int", _last_index_of, half),
    Entry("string.lowerAscii(): string", lambda text: _ascii(text, upper=False), half),
    Entry("string.upperAscii(): string", lambda text: _ascii(text, upper=True), half),
    Entry("string.replace(string, string): string", lambda text, old, new: text.replace(old, new), half),
    Entry("string.replace(string, string, int): string", lambda text, old, new, n: text.replace(old, new, n), half),
    Entry("string.split(string): list", _split, half),
    Entry("string.split(string, int): list", _split, half),
    Entry("list.join(): string", _join, _joined_cost),
    Entry("list.join(string): string", _join, _joined_cost),
    Entry("string.substring(int): string", _substring, half),
    Entry("string.substring(int, int): string", _substring, half),
    Entry("string.trim(): string", lambda text: text.strip(_SPACE), half),
    Entry("string.reverse(): string", lambda text: text[::-1], half),
    Entry(".strings.quote(string): string", lambda text: f'"{"".join(_QUOTED.get(c, c) for c in text)}"', half),
    Entry("string.format(list): string", _format, _format_cost),
    Entry("string.find(string): string", _find, match_cost),
    Entry("string.findAll(string): list", _find_all, match_cost),
    Entry("string.findAll(string, int): list", _find_all, match_cost),
    Entry(".base64.encode(bytes): string", lambda value: base64.b64encode(value).decode(), half),
    Entry(".base64.decode(string): bytes", _decode, half),
)
