"""The columns of custom objects in a Table. Source: apiextensions pkg/registry/customresource/tableconvertor."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.codec.cells.text import human_duration
from tiphys_apimachinery.scheme import Column
from tiphys_apiserver.crd import json_path

Cells = Callable[[Any, datetime.datetime], list[Any]]

_NAME = Column(name="Name", type="string", format="name", description="metadata.name")
_AGE_PATH = ".metadata.creationTimestamp"


def columns_of(printed: Iterable[Any]) -> tuple[Column, ...]:
    """The columns' heads: the name, and what the definition adds, which is the age where it adds nothing."""
    heads = [
        Column(
            name=column.name,
            type=column.type,
            format=column.format,
            description=column.description
            or f"Custom resource definition column (in JSONPath format): {column.jsonPath}",
            priority=column.priority,
        )
        for column in printed
    ]
    return (_NAME, *(heads or [Column(name="Age", type="date", description=_AGE_PATH)]))


def cells_of(printed: Iterable[Any]) -> Cells:
    """What makes the cells of one object. Paths that can't be read were refused when the definition was made."""
    wanted = [(column.type, json_path.parse(column.jsonPath)) for column in printed]
    readers = wanted or [("date", json_path.parse(_AGE_PATH))]

    def cells(obj: Any, now: datetime.datetime) -> list[Any]:
        document = json_codec.to_json(obj)
        return [obj.metadata.name, *(_cell(kind, json_path.first(path, document), now) for kind, path in readers)]

    return cells


def _cell(kind: str, value: Any, now: datetime.datetime) -> Any:
    if value is None:
        return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "integer":
        return int(value) if is_number else None
    if kind == "number":
        return value if is_number else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if kind == "date":
        return _age(value, now)
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _age(value: Any, now: datetime.datetime) -> str:
    try:
        moment = datetime.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return "<invalid>"
    if moment.tzinfo is None:
        return "<invalid>"
    return human_duration((now - moment).total_seconds())
