"""Reads the fields of an object that field selectors may name."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final

from google.protobuf.message import Message

from tiphys_apimachinery.scheme import ResourceInfo

# Where a selector's word is not the field's. Source: kubernetes pkg/registry/batch/job, JobSelectableFields.
_STORED_AS: Final = {"status.successful": "status.succeeded"}


class FieldReader:
    """Compiled once per resource from the schema's selectable_fields; reading costs a few µs."""

    def __init__(self, resource: ResourceInfo) -> None:
        self._namespaced = resource.namespaced
        # Those of metadata are read beside.
        self._names = resource.selectable_fields
        self._values = attrgetter(*(_STORED_AS.get(name, name) for name in self._names)) if self._names else None
        # Those that are no text, known when the first object was read: a field is of one type.
        self._others: tuple[str, ...] | None = None

    def read(self, obj: Message) -> Mapping[str, str]:
        """Text of each selectable field; empty text where it is unset, true and false for booleans."""
        whole: Any = obj
        metadata = whole.metadata
        fields = {"metadata.name": metadata.name}
        if self._namespaced:
            fields["metadata.namespace"] = metadata.namespace
        if self._values is not None:
            values = self._values(whole)
            fields.update(zip(self._names, values if len(self._names) > 1 else (values,), strict=True))
            if self._others is None:
                self._others = tuple(name for name in self._names if type(fields[name]) is not str)
            for name in self._others:
                fields[name] = _text(fields[name])
        return fields


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
