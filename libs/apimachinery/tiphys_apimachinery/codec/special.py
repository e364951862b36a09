"""Values whose JSON form is not that of a plain struct: times, durations, bytes, quantities.

Reading functions raise ValueError with the words that Go uses. Forms:
tests/conformance/contracts/json/special.json.
"""

from __future__ import annotations

import binascii
import calendar
import datetime
import functools
import re
import time
from typing import Any, Final

from tiphys_apimachinery.field_error import quote
from tiphys_apimachinery.quantity import QuantityError, canonical

_LAYOUT: Final = "2006-01-02T15:04:05Z07:00"
_TIME: Final = re.compile(
    # The fraction is bounded because readings are cached by their text.
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.,]([0-9]{1,32}))?"
    r"(?:Z|([+-])([0-9]{2}):([0-9]{2}))",
    re.ASCII,
)
# Seconds of 0001-01-01, which Go calls the zero time, and of the end of 9999.
_ZERO: Final = -62135596800
_LAST: Final = 253402300799
_DURATION_UNITS: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION_PART: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
_MAX_INT64: Final = 2**63 - 1


@functools.lru_cache(maxsize=8192)
def time_text(seconds: int) -> str | None:
    """Time in JSON; None, hence null, for a moment outside the years 1 to 9999."""
    if not _ZERO < seconds <= _LAST:
        return None
    moment = time.gmtime(seconds)
    return (
        f"{moment.tm_year:04d}-{moment.tm_mon:02d}-{moment.tm_mday:02d}"
        f"T{moment.tm_hour:02d}:{moment.tm_min:02d}:{moment.tm_sec:02d}Z"
    )


def micro_time_text(seconds: int, nanos: int) -> str | None:
    """MicroTime in JSON, always with six digits of fraction."""
    extra, nanos = divmod(nanos, 10**9)
    text = time_text(seconds + extra)
    return None if text is None else f"{text[:-1]}.{nanos // 1000:06d}Z"


@functools.lru_cache(maxsize=8192)
def time_init(text: str) -> dict[str, int]:
    """Fields of a Time message, none for the zero time. The dict is shared: read only."""
    seconds, _ = _parse_time(text)
    return {} if seconds == _ZERO else {"seconds": seconds, "nanos": 0}


@functools.lru_cache(maxsize=1024)
def micro_time_init(text: str) -> dict[str, int]:
    """Fields of a MicroTime message, cut to whole microseconds. The dict is shared: read only."""
    seconds, nanos = _parse_time(text)
    return {} if seconds == _ZERO and not nanos else {"seconds": seconds, "nanos": nanos // 1000 * 1000}


def _parse_time(text: str) -> tuple[int, int]:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"parsing time {quote(text)} as {quote(_LAYOUT)}: cannot parse {quote(text)}")
    fraction, sign = match[7] or "", match[8]
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    zone = (int(match[9]) * 60 + int(match[10])) * 60 if sign else 0
    try:
        # The constructor checks the ranges; a leap second is none of them.
        moment = datetime.datetime(year, month, day, hour, minute, second)  # noqa: DTZ001  the zone is taken off below
    except ValueError as error:
        raise ValueError(f"parsing time {quote(text)}: {_out_of_range(str(error))}") from error
    seconds = calendar.timegm(moment.timetuple()) - (zone if sign == "+" else -zone)
    return seconds, int(fraction[:9].ljust(9, "0"))


def _out_of_range(text: str) -> str:
    return f"{text.split(' ')[0]} out of range"


def duration_text(nanos: int) -> str:
    """Duration as Go writes it: 1h0m0s, 1.5s, 20ms, 0s."""
    if nanos == 0:
        return "0s"
    sign, size = ("-", -nanos) if nanos < 0 else ("", nanos)
    if size < 10**9:
        unit, digits = ("ns", 0) if size < 10**3 else ("µs", 3) if size < 10**6 else ("ms", 6)
        return f"{sign}{_decimal(size, digits)}{unit}"
    minutes, rest = divmod(size, 60 * 10**9)
    seconds = f"{_decimal(rest, 9)}s"
    if not minutes:
        return sign + seconds
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours}h{minutes}m{seconds}" if hours else f"{sign}{minutes}m{seconds}"


def _decimal(number: int, digits: int) -> str:
    whole, fraction = divmod(number, 10**digits)
    text = f"{fraction:0{digits}d}".rstrip("0") if fraction else ""
    return f"{whole}.{text}" if text else str(whole)


def parse_duration(text: str) -> int:
    """Nanoseconds of a Go duration text."""
    body = text[1:] if text[:1] in ("+", "-") else text
    if body == "0":
        return 0
    total = position = 0
    while position < len(body):
        match = _DURATION_PART.match(body, position)
        if match is None or not (match[1] or match[2]):
            raise ValueError(f"time: invalid duration {quote(text)}")
        unit = _DURATION_UNITS[match[3]]
        total += int(match[1] or "0") * unit
        if match[2]:
            total += int(match[2]) * unit // 10 ** len(match[2])
        position = match.end()
    if not body or total > _MAX_INT64:
        raise ValueError(f"time: invalid duration {quote(text)}")
    return -total if text[0] == "-" else total


def encode_bytes(value: bytes) -> str:
    """Base64 with padding."""
    return binascii.b2a_base64(value, newline=False).decode()


def decode_bytes(text: str) -> bytes:
    """Bytes of base64 with padding; line ends are skipped, as Go does."""
    if "\n" in text or "\r" in text:
        text = text.replace("\n", "").replace("\r", "")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise ValueError("illegal base64 data") from error


def quantity_text(text: str) -> str:
    """Quantity in JSON: canonical; text that can't be read, which only a foreign writer can store, stays."""
    try:
        return canonical(text) if text else "0"
    except QuantityError:
        return text


def quantity_init(value: Any) -> dict[str, str]:
    """Fields of a Quantity message from text or a bare number."""
    if type(value) is not str:
        if type(value) not in (int, float):
            raise QuantityError(
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            )
        value = repr(value)
    return {"string": canonical(value.strip())}


def int_or_string_init(value: Any) -> dict[str, Any]:
    """Fields of an IntOrString message; all three, as Go writes them."""
    if type(value) is int:
        return {"type": 0, "intVal": value, "strVal": ""}
    if type(value) is str:
        return {"type": 1, "intVal": 0, "strVal": value}
    raise TypeError("neither a number nor text")
