"""CEL's own functions: sizes, conversions, texts, times. Source: cel-spec doc/langdef.md."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tiphys_apimachinery.cel.library.patterns import compiled, match_cost
from tiphys_apimachinery.cel.overloads import Entry
from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.cel.values import CelType, UInt, checked_int, checked_uint, type_name

_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_OFFSET: Final = re.compile(r"([+-]?)(\d{1,2}):(\d{2})")
_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_STAMP: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:[Zz]|[+-]\d{2}:\d{2})")
# Years 1 to 9999, and the spans between them. Source: google.protobuf.Duration.
_MAX_SPAN: Final = datetime.timedelta(seconds=315_576_000_000)


def half(text: Any, *_rest: Any) -> int:
    """A tenth of the length of a text or list."""
    return len(text) // 10


def parse_duration(text: str) -> datetime.timedelta:
    """1h30m, -2.5s. Raises CelError."""
    body = text[1:] if text[:1] in ("-", "+") else text
    total, at = 0.0, 0
    if body == "0":
        return datetime.timedelta()
    micros = 0
    for match in _PART.finditer(body):
        if match.start() != at:
            break
        number, unit = match[1], match[2]
        if unit in ("h", "m", "s") and "." not in number:
            micros += int(number) * int(_SECONDS[unit]) * 1_000_000
        else:
            total += float(number) * _SECONDS[unit]
        at = match.end()
    if not body or at != len(body):
        raise CelError(f'time: invalid duration "{text}"')
    found = datetime.timedelta(microseconds=micros) + datetime.timedelta(seconds=total)
    if found > _MAX_SPAN:
        raise CelError("duration overflow")
    return -found if text.startswith("-") else found


def duration_text(value: datetime.timedelta) -> str:
    """The seconds, as 5400s or 1.5s."""
    micros = value // datetime.timedelta(microseconds=1)
    whole, rest = divmod(abs(micros), 1_000_000)
    fraction = f".{rest:06d}".rstrip("0") if rest else ""
    return f"{'-' if micros < 0 else ''}{whole}{fraction}s"


def parse_timestamp(text: str) -> datetime.datetime:
    """RFC 3339. Raises CelError."""
    if _STAMP.fullmatch(text) is None:
        raise CelError(f'invalid timestamp "{text}"')
    short = re.sub(r"(\.\d{6})\d+", r"\1", text.upper())
    try:
        return datetime.datetime.fromisoformat(short).astimezone(datetime.UTC)
    except (ValueError, OverflowError) as err:
        raise CelError(f'invalid timestamp "{text}": {err}') from err


def timestamp_text(value: datetime.datetime) -> str:
    """RFC 3339 in UTC, without zeros at the end."""
    fraction = f".{value.microsecond:06d}".rstrip("0") if value.microsecond else ""
    return f"{value.strftime('%Y-%m-%dT%H:%M:%S').rjust(19, '0')}{fraction}Z"


def double_text(value: float) -> str:
    """As Go's shortest form."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    text = repr(value)
    if "e" in text:
        mantissa, _, power = text.partition("e")
        return f"{mantissa.removesuffix('.0')}e{power[0] if power[0] in '+-' else '+'}{power.lstrip('+-').zfill(2)}"
    return text


def _to_int(value: Any) -> int:
    if isinstance(value, float):
        if math.isnan(value) or not -(2.0**63) < value < 2.0**63:
            raise CelError("integer overflow")
        return int(value)
    if isinstance(value, datetime.datetime):
        return (value - _EPOCH) // datetime.timedelta(seconds=1)
    return checked_int(_number(value) if isinstance(value, str) else int(value))


def _number(text: str) -> int:
    if re.fullmatch(r"[+-]?\d+", text, re.ASCII) is None:
        raise CelError(f'type conversion error from string to int: "{text}"')
    return int(text)


def _to_uint(value: Any) -> UInt:
    if isinstance(value, float) and (math.isnan(value) or not 0 <= value < 2.0**64):
        raise CelError("unsigned integer overflow")
    return checked_uint(_number(value) if isinstance(value, str) else int(value))


def _to_double(value: Any) -> float:
    try:
        return float(value)
    except ValueError as err:
        raise CelError(f'type conversion error from string to double: "{value}"') from err


def _to_string(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return double_text(value)
    if isinstance(value, datetime.timedelta):
        return duration_text(value)
    if isinstance(value, datetime.datetime):
        return timestamp_text(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as err:
            raise CelError("invalid UTF-8 in bytes, cannot convert to string") from err
    return str(value)


def _to_bool(text: str) -> bool:
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise CelError(f'type conversion error from string to bool: "{text}"')


def _to_timestamp(value: Any) -> datetime.datetime:
    if isinstance(value, str):
        return parse_timestamp(value)
    try:
        return _EPOCH + datetime.timedelta(seconds=value) if isinstance(value, int) else value
    except OverflowError as err:
        raise CelError("timestamp overflow") from err


def _zone(name: str) -> datetime.tzinfo:
    match = _OFFSET.fullmatch(name)
    if match is not None:
        minutes = int(match[2]) * 60 + int(match[3])
        return datetime.timezone(datetime.timedelta(minutes=-minutes if match[1] == "-" else minutes))
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as err:
        raise CelError(f"unknown time zone {name}") from err


def _in_zone(read: Callable[[datetime.datetime], int]) -> Callable[..., int]:
    return lambda value, zone="UTC": read(value.astimezone(_zone(zone)))


_READERS: Final[dict[str, Callable[[datetime.datetime], int]]] = {
    "getFullYear": lambda at: at.year,
    "getMonth": lambda at: at.month - 1,
    "getDate": lambda at: at.day,
    "getDayOfMonth": lambda at: at.day - 1,
    "getDayOfWeek": lambda at: at.isoweekday() % 7,
    "getDayOfYear": lambda at: at.timetuple().tm_yday - 1,
    "getHours": lambda at: at.hour,
    "getMinutes": lambda at: at.minute,
    "getSeconds": lambda at: at.second,
    "getMilliseconds": lambda at: at.microsecond // 1000,
}
_SPANS: Final = {"getHours": 3_600_000_000, "getMinutes": 60_000_000, "getSeconds": 1_000_000, "getMilliseconds": 1000}


def _spans(unit: int) -> Callable[[datetime.timedelta], int]:
    def read(value: datetime.timedelta) -> int:
        micros = value // datetime.timedelta(microseconds=1)
        return micros // unit if micros >= 0 else -(-micros // unit)

    return read


ENTRIES: Final = (
    Entry("size(string|bytes|list|map): int", len),
    Entry("string|bytes|list|map.size(): int", len),
    Entry(
        "string.contains(string): bool",
        lambda text, part: part in text,
        lambda text, part: len(text) * len(part) // 100,
    ),
    Entry(
        "string.startsWith(string): bool", lambda text, part: text.startswith(part), lambda text, part: len(part) // 10
    ),
    Entry("string.endsWith(string): bool", lambda text, part: text.endswith(part), lambda text, part: len(part) // 10),
    Entry("string.matches(string): bool", lambda text, pattern: compiled(pattern).search(text) is not None, match_cost),
    Entry(
        "matches(string, string): bool", lambda text, pattern: compiled(pattern).search(text) is not None, match_cost
    ),
    Entry("int(number|string|timestamp): int", _to_int),
    Entry("uint(number|string): uint", _to_uint),
    Entry("double(number|string): double", _to_double),
    Entry("string(bool|number|string|bytes|timestamp|duration): string", _to_string),
    Entry("bytes(bytes): bytes", bytes),
    Entry("bytes(string): bytes", str.encode, half),
    Entry("bool(bool): bool", bool),
    Entry("bool(string): bool", _to_bool),
    Entry("timestamp(string|int|timestamp): timestamp", _to_timestamp),
    Entry("duration(string): duration", parse_duration),
    Entry("duration(duration): duration", lambda value: value),
    Entry("dyn(any): any", lambda value: value),
    Entry("type(any): type", lambda value: CelType(type_name(value))),
    *(Entry(f"timestamp.{name}(): int", _in_zone(read)) for name, read in _READERS.items()),
    *(Entry(f"timestamp.{name}(string): int", _in_zone(read)) for name, read in _READERS.items()),
    *(Entry(f"duration.{name}(): int", _spans(unit)) for name, unit in _SPANS.items()),
)
