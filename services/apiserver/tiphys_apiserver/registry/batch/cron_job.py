"""Cron jobs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.batch.job import job_spec_errors
from tiphys_apiserver.registry.core.pod_defaults import default_pod_spec
from tiphys_apiserver.registry.strategy import Strategy, WriteContext

# Jobs get 11 characters behind the name. Source: pkg/apis/batch/validation.
_MAX_NAME = 52
_MACROS = frozenset({"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"})
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("day of week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
_TERM = re.compile(r"(?P<low>\*|\?|[0-9a-z]+)(?:-(?P<high>[0-9a-z]+))?(?:/(?P<step>[0-9]+))?")


class CronJobStrategy(Strategy):
    """The rules of cron jobs."""

    def apply_defaults(self, obj: Message) -> None:
        """The schema's, and the pod template's."""
        super().apply_defaults(obj)
        cron_job: Any = obj
        default_pod_spec(cron_job.spec.jobTemplate.spec.template.spec)

    def validate_name(self, name: str) -> list[str]:
        """Short enough for the names of its jobs."""
        errors = super().validate_name(name)
        if len(name) > _MAX_NAME:
            errors.append(f"must be no more than {_MAX_NAME} characters")
        return errors

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of schedule, zone and template."""
        return super().validate(ctx, obj) + list(_faults(obj))

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same for a changed one."""
        return super().validate_update(ctx, new, old) + list(_faults(new))


def _faults(cron_job: Any) -> Iterator[FieldError]:
    spec = cron_job.spec
    if spec.schedule:
        if "TZ" in spec.schedule:
            yield FieldError.invalid(
                "spec.schedule", spec.schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            )
        else:
            why = schedule_fault(spec.schedule)
            if why:
                yield FieldError.invalid("spec.schedule", spec.schedule, why)
    if spec.HasField("timeZone"):
        yield from _zone(spec.timeZone)
    job = spec.jobTemplate.spec
    if job.HasField("selector") and not job.manualSelector:
        yield FieldError.invalid("spec.jobTemplate.spec.selector", "", "`selector` will be auto-generated")
    yield from job_spec_errors(job, "spec.jobTemplate.spec")


def _zone(name: str) -> Iterator[FieldError]:
    if not name:
        yield FieldError.invalid("spec.timeZone", name, "timeZone must be nil or non-empty string")
        return
    if name.lower() == "local":
        yield FieldError.invalid(
            "spec.timeZone",
            name,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        )
        return
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        yield FieldError.invalid("spec.timeZone", name, f"unknown time zone {name}")


def schedule_fault(text: str) -> str:
    """What is wrong with a schedule of five fields, a macro, or @every; "" where it is right."""
    if text.startswith("@"):
        if text in _MACROS or re.fullmatch(r"@every ([0-9.]+(ns|us|µs|ms|s|m|h))+", text):
            return ""
        return f"unrecognized descriptor: {text}"
    fields = text.split()
    if len(fields) != len(_FIELDS):
        return f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    for field, (label, low, high, names) in zip(fields, _FIELDS, strict=True):
        for term in field.lower().split(","):
            why = _term_fault(term, low, high, names)
            if why:
                return f"failed to parse {label} field {field}: {why}"
    return ""


def _term_fault(term: str, low: int, high: int, names: tuple[str, ...]) -> str:
    match = _TERM.fullmatch(term)
    if match is None:
        return f"invalid term {term!r}"
    first = match["low"]
    if match["step"] == "0" or (match["step"] or "1").strip("0") == "":
        return "step of range should be a positive number"
    if first in ("*", "?"):
        return "" if match["high"] is None else "a star has no end"
    numbers = [_number(part, low, names) for part in (first, match["high"]) if part is not None]
    if None in numbers:
        return f"failed to parse int from {term}"
    known = [number for number in numbers if number is not None]
    if known[0] < low:
        return f"beginning of range ({known[0]}) below minimum ({low})"
    if known[-1] > high:
        return f"end of range ({known[-1]}) above maximum ({high})"
    if known[0] > known[-1]:
        return f"beginning of range ({known[0]}) beyond end of range ({known[-1]})"
    return ""


def _number(part: str, low: int, names: tuple[str, ...]) -> int | None:
    if part.isdecimal():
        return int(part)
    return names.index(part) + low if part in names else None
