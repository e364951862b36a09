"""Cells of events, of the core group and of events.k8s.io, which name the same facts differently."""

from __future__ import annotations

import datetime
from typing import Any

from tiphys_apimachinery.codec.cells.text import age
from tiphys_apimachinery.meta import is_zero_time


def core_event_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Cells of a core/v1 Event."""
    return _cells(
        obj,
        now,
        about=obj.involvedObject,
        source=obj.source,
        controller=obj.reportingComponent,
        first=obj.firstTimestamp,
        last=obj.lastTimestamp,
        count=obj.count,
        message=obj.message,
    )


def event_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Cells of an events.k8s.io/v1 Event."""
    return _cells(
        obj,
        now,
        about=obj.regarding,
        source=obj.deprecatedSource,
        controller=obj.reportingController,
        first=obj.deprecatedFirstTimestamp,
        last=obj.deprecatedLastTimestamp,
        count=obj.deprecatedCount,
        message=obj.note,
    )


def _cells(obj: Any, now: datetime.datetime, **facts: Any) -> list[Any]:
    about, source = facts["about"], facts["source"]
    first = obj.eventTime if is_zero_time(facts["first"]) else facts["first"]
    last = first if is_zero_time(facts["last"]) else facts["last"]
    count = facts["count"]
    if obj.HasField("series"):
        last, count = obj.series.lastObservedTime, obj.series.count
    kind = about.kind.lower()
    component = source.component or facts["controller"]
    host = source.host or obj.reportingInstance
    return [
        age(last, now),
        obj.type,
        obj.reason,
        f"{kind}/{about.name}" if about.name else kind,
        about.fieldPath,
        f"{component}, {host}" if host else component,
        facts["message"].strip(),
        age(first, now),
        str(max(count, 1)),
        obj.metadata.name,
    ]
