"""Schedules of CronJobs: five fields, a word such as @hourly, or @every with a duration, read in a time zone.

The moments of a schedule are those whole minutes whose local time matches. So when clocks are put forward, what falls
into the gap does not run that day; when they are put back, what falls into the hour that comes twice runs twice. That
is what Kubernetes does, and no Python library does: cronsim and croniter follow other traditions there.

Source of the language: github.com/robfig/cron v3, ParseStandard, as kubernetes pkg/apis/batch/validation uses it.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from zoneinfo import ZoneInfo

UTC: Final = datetime.UTC
_MINUTE: Final = datetime.timedelta(minutes=1)
_DAY: Final = datetime.timedelta(days=1)
# A schedule without a moment in five years has none (the 31st of February). Source: robfig/cron, SpecSchedule.Next.
_YEARS: Final = 5
_WORDS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_UNITS_S: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_DURATION: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


class CronError(ValueError):
    """A schedule that cannot be read; the text says why."""


class Schedule(Protocol):
    """When something is to happen."""

    def next_after(self, moment: datetime.datetime) -> datetime.datetime | None:
        """The first moment of the schedule after this one, in UTC; None where there is none for years."""


@dataclass(frozen=True, slots=True)
class _Bounds:
    label: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_FIELDS: Final = (
    _Bounds("minute", 0, 59),
    _Bounds("hour", 0, 23),
    _Bounds("day of month", 1, 31),
    _Bounds("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    _Bounds("day of week", 0, 6, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


@dataclass(frozen=True, slots=True)
class Every:
    """A moment each so many seconds, counted from the one before."""

    seconds: int

    def next_after(self, moment: datetime.datetime) -> datetime.datetime:
        """So many seconds later, on a whole second."""
        return (moment + datetime.timedelta(seconds=self.seconds)).astimezone(UTC).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class Fields:
    """The five fields. Days match by both day fields where one of them is a star, and by either where none is."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    is_any_day: bool
    zone: datetime.tzinfo

    def next_after(self, moment: datetime.datetime) -> datetime.datetime | None:
        """The first matching minute after the moment, in UTC."""
        start = moment.astimezone(UTC).replace(second=0, microsecond=0) + _MINUTE
        local = start.astimezone(self.zone)
        for day in self._days_from(local.date()):
            found = self._first_of_day(day, start)
            if found is not None:
                return found
        return None

    def _days_from(self, first: datetime.date) -> Iterator[datetime.date]:
        day = first
        while day.year <= first.year + _YEARS:
            if day.month not in self.months:
                day = (day.replace(day=1) + 31 * _DAY).replace(day=1)
                continue
            if self._matches_day(day):
                yield day
            day += _DAY

    def _matches_day(self, day: datetime.date) -> bool:
        by_month, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (by_month and by_week) if self.is_any_day else (by_month or by_week)

    def _first_of_day(self, day: datetime.date, start: datetime.datetime) -> datetime.datetime | None:
        """The first matching minute of a local day that is not before start."""
        begin = datetime.datetime.combine(day, datetime.time(), self.zone)
        end = datetime.datetime.combine(day + _DAY, datetime.time(), self.zone)
        if begin.utcoffset() != end.utcoffset():
            return self._first_of_odd_day(day, start)
        local = start.astimezone(self.zone)
        earliest = (local.hour, local.minute) if local.date() == day else (0, 0)
        for hour in self.hours:
            if hour < earliest[0]:
                continue
            for minute in self.minutes:
                if (hour, minute) >= earliest:
                    return begin.replace(hour=hour, minute=minute).astimezone(UTC)
        return None

    def _first_of_odd_day(self, day: datetime.date, start: datetime.datetime) -> datetime.datetime | None:
        """The same on a day on which clocks change, minute by real minute: that tells gap and fold alike."""
        moment = max(start, datetime.datetime.combine(day, datetime.time(), self.zone).astimezone(UTC))
        while True:
            local = moment.astimezone(self.zone)
            if local.date() > day:
                return None
            if local.date() == day and local.hour in self.hours and local.minute in self.minutes:
                return moment
            moment += _MINUTE


def parse_cron(text: str, zone: datetime.tzinfo = UTC) -> Schedule:
    """The schedule that the text names, in this zone. Raises CronError."""
    if text.startswith("@"):
        return _parse_word(text, zone)
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise CronError(f"expected exactly {len(_FIELDS)} fields, found {len(fields)}: [{' '.join(fields)}]")
    sets = [_parse_field(field, bounds) for field, bounds in zip(fields, _FIELDS, strict=True)]
    return Fields(
        minutes=tuple(sorted(sets[0])),
        hours=tuple(sorted(sets[1])),
        days=frozenset(sets[2]),
        months=frozenset(sets[3]),
        weekdays=frozenset(sets[4]),
        is_any_day=_has_star(fields[2]) or _has_star(fields[4]),
        zone=zone,
    )


def _parse_word(text: str, zone: datetime.tzinfo) -> Schedule:
    if text in _WORDS:
        return parse_cron(_WORDS[text], zone)
    if text.startswith("@every "):
        span_s = _duration_s(text.removeprefix("@every "))
        if span_s is None:
            raise CronError(f"failed to parse duration {text}")
        return Every(max(int(span_s), 1))
    raise CronError(f"unrecognized descriptor: {text}")


def _duration_s(text: str) -> float | None:
    """A duration as Go writes it, in seconds; None for what is none."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def _parse_field(field: str, bounds: _Bounds) -> set[int]:
    found: set[int] = set()
    for term in field.lower().split(","):
        if not term:
            # Commas beside each other mean nothing, as upstream's splitting has it.
            continue
        try:
            found.update(_parse_term(term, bounds))
        except CronError as err:
            raise CronError(f"failed to parse {bounds.label} field {field}: {err}") from err
    if not found:
        raise CronError(f"failed to parse {bounds.label} field {field}: it names nothing")
    return found


def _parse_term(term: str, bounds: _Bounds) -> Sequence[int]:
    head, *steps = term.split("/")
    low, *highs = head.split("-")
    if len(steps) > 1:
        raise CronError(f"too many slashes: {term}")
    if len(highs) > 1:
        raise CronError(f"too many hyphens: {term}")
    if low in ("*", "?"):
        if highs:
            raise CronError(f"failed to parse int from {low}")
        first, last = bounds.low, bounds.high
    else:
        first = _number(low, bounds)
        # One number with a step means from there on.
        last = _number(highs[0], bounds) if highs else bounds.high if steps else first
    step = _whole_number(steps[0]) if steps else 1
    if step == 0:
        raise CronError(f"step of range should be a positive number: {term}")
    if first < bounds.low:
        raise CronError(f"beginning of range ({first}) below minimum ({bounds.low}): {term}")
    if last > bounds.high:
        raise CronError(f"end of range ({last}) above maximum ({bounds.high}): {term}")
    if first > last:
        raise CronError(f"beginning of range ({first}) beyond end of range ({last}): {term}")
    return range(first, last + 1, step)


def _number(text: str, bounds: _Bounds) -> int:
    return bounds.names.index(text) + bounds.low if text in bounds.names else _whole_number(text)


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise CronError(f"failed to parse int from {text}")
    return int(text)


def _has_star(field: str) -> bool:
    """Whether the field leaves the day open. A star with a step of more than one does not."""
    for term in field.split(","):
        head, _, step = term.partition("/")
        if head in ("*", "?") and int(step or 1) == 1:
            return True
    return False


def zone_named(name: str) -> ZoneInfo | None:
    """The time zone of this name in the tz database; None where there is none."""
    if not name or name.lower() == "local":
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None
