"""events.k8s.io/v1 Event as core/v1 Event: the same facts under other names."""

from __future__ import annotations

from typing import Any

from tiphys.api.core.v1 import event_pb2
from tiphys.api.events.v1 import events_pb2
from tiphys_apiserver.registry.conversion import Converter
from tiphys_apiserver.registry.strategy import copy_field

# (name in events.k8s.io/v1, name in core/v1)
_NAMES = (
    ("eventTime", "eventTime"),
    ("reportingController", "reportingComponent"),
    ("reportingInstance", "reportingInstance"),
    ("action", "action"),
    ("reason", "reason"),
    ("regarding", "involvedObject"),
    ("related", "related"),
    ("note", "message"),
    ("type", "type"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
)


def to_storage(event: Any) -> Any:
    """The core/v1 form."""
    stored: Any = event_pb2.Event()
    copy_field(stored, event, "metadata")
    for here, there in _NAMES:
        _copy(stored, there, event, here)
    if event.HasField("series"):
        stored.series.count = event.series.count
        stored.series.lastObservedTime.CopyFrom(event.series.lastObservedTime)
    return stored


def from_storage(stored: Any) -> Any:
    """The events.k8s.io/v1 form."""
    event: Any = events_pb2.Event()
    copy_field(event, stored, "metadata")
    for here, there in _NAMES:
        _copy(event, here, stored, there)
    if stored.HasField("series"):
        event.series.count = stored.series.count
        event.series.lastObservedTime.CopyFrom(stored.series.lastObservedTime)
    return event


def _copy(target: Any, target_name: str, source: Any, source_name: str) -> None:
    if not source.HasField(source_name):
        return
    value = getattr(source, source_name)
    if source.DESCRIPTOR.fields_by_name[source_name].message_type is not None:
        getattr(target, target_name).CopyFrom(value)
    else:
        setattr(target, target_name, value)


CONVERTER = Converter(
    home=("", "v1", "events"),
    to_storage=to_storage,
    from_storage=from_storage,
    field_names={
        "reportingController": "reportingComponent",
        **{
            f"regarding.{name}": f"involvedObject.{name}"
            for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
        },
    },
)
