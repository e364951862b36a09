"""Forms of values that many cells share: ages, lists cut short, selectors."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tiphys_apimachinery.labels import SelectorError, from_label_selector
from tiphys_apimachinery.meta import to_datetime

NONE: Final = "<none>"
UNKNOWN: Final = "<unknown>"
UNSET: Final = "<unset>"

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400
_YEAR: Final = 365 * _DAY


def human_duration(seconds: float) -> str:
    """A length of time in the two or so units that matter; Source: apimachinery pkg/util/duration."""
    if seconds < -1:
        return "<invalid>"
    whole = max(int(seconds), 0)
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    if whole < 10 * _MINUTE:
        return _two_units(whole, (_MINUTE, "m"), (1, "s"))
    if whole < 3 * _HOUR:
        return f"{whole // _MINUTE}m"
    if whole < 8 * _HOUR:
        return _two_units(whole, (_HOUR, "h"), (_MINUTE, "m"))
    if whole < 2 * _DAY:
        return f"{whole // _HOUR}h"
    if whole < 8 * _DAY:
        return _two_units(whole, (_DAY, "d"), (_HOUR, "h"))
    if whole < 2 * _YEAR:
        return f"{whole // _DAY}d"
    if whole < 8 * _YEAR:
        return _two_units(whole, (_YEAR, "y"), (_DAY, "d"))
    return f"{whole // _YEAR}y"


def _two_units(whole: int, large: tuple[int, str], small: tuple[int, str]) -> str:
    """Units are their length in seconds and their name."""
    first, rest = f"{whole // large[0]}{large[1]}", whole % large[0] // small[0]
    return f"{first}{rest}{small[1]}" if rest else first


def age(time: Any, now: datetime.datetime) -> str:
    """How long ago a Time or MicroTime was; <unknown> for the zero time."""
    moment = to_datetime(time)
    return UNKNOWN if moment is None else human_duration((now - moment).total_seconds())


def object_age(obj: Any, now: datetime.datetime) -> str:
    """How long ago the object was created."""
    return age(obj.metadata.creationTimestamp, now)


def first_of(items: Sequence[str], limit: int, *, empty: str, separator: str = ",") -> str:
    """The first items joined, and how many are left out."""
    if not items:
        return empty
    text = separator.join(items[:limit])
    return f"{text} + {len(items) - limit} more..." if len(items) > limit else text


def joined(items: Iterable[str], *, separator: str = ",", empty: str = "") -> str:
    """The items joined, or another text when there are none."""
    return separator.join(items) or empty


def labels_text(labels: Mapping[str, str]) -> str:
    """Labels as key=value pairs in order, <none> without any."""
    return joined((f"{key}={labels[key]}" for key in sorted(labels)), empty=NONE)


def selector_text(owner: Any, field: str = "selector") -> str:
    """A LabelSelector field in text form; <none> where it is absent or selects everything."""
    if not owner.HasField(field):
        return NONE
    try:
        return str(from_label_selector(getattr(owner, field))) or NONE
    except SelectorError:
        return "<error>"


def optional(message: Any, field: str, default: Any = NONE) -> Any:
    """The field's value, or the default where it is absent."""
    return getattr(message, field) if message.HasField(field) else default


def container_names(pod_spec: Any) -> str:
    """Names of the containers, joined by commas."""
    return ",".join(container.name for container in pod_spec.containers)


def container_images(pod_spec: Any) -> str:
    """Images of the containers, joined by commas."""
    return ",".join(container.image for container in pod_spec.containers)


def int_or_string_text(owner: Any, field: str, default: str) -> str:
    """An IntOrString field as text."""
    if not owner.HasField(field):
        return default
    value = getattr(owner, field)
    return value.strVal if value.type else str(value.intVal)
