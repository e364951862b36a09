"""Field ownership of one write: what apply and ordinary writes do to metadata.managedFields.

Ordinary writes are recorded only for objects that somebody applies, on the server's side or with kubectl's annotation:
for all others (pods of a ReplicaSet, leases, events) it would cost each write as much again as everything else in it,
and nobody would ever ask. See docs/adr/0006-field-ownership.md.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.dynamic import DynamicObject
from tiphys_apimachinery.errors import BadRequest, FieldError, Invalid
from tiphys_apimachinery.patch import managed_fields
from tiphys_apimachinery.patch.field_set import Path
from tiphys_apimachinery.patch.managed_fields import APPLY, LAST_APPLIED, UPDATE, Writer
from tiphys_apimachinery.patch.typed import Shape, shape_of
from tiphys_apimachinery.schema import descriptor_of
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.server.call import Call

_STATUS = "f:status"
_MAX_MANAGER = 128


class Ownership:
    """Who owns what after one write through one version of a resource."""

    def __init__(self, served: Served, call: Call, now: datetime) -> None:
        self._served = served
        self._call = call
        self._now = now
        # Where somebody else converts, plain writes are recorded in the stored version: no question for its sake.
        self._seen = served.info if served.remote is None else served.store.resource
        cls: Any = served.info.message
        self._shape = _shape(cls)

    def record(self, new: Any, old: Any) -> None:
        """Bring new's managedFields up to date; both in the stored version, old None for a new object."""
        if not _is_followed(new, old):
            return
        served = self._served
        before = json_codec.to_json(served.from_storage(old)) if old is not None else None
        after = json_codec.to_json(served.from_storage(new))
        shape = self._shape if served.remote is None else _shape(self._seen.message)
        entries = managed_fields.updated(before, after, shape, self._writer(UPDATE, self._seen.api_version))
        _put(new, entries)

    def apply(self, live: Any, config: Any, *, force: bool) -> dict[str, Any]:
        """What applying the configuration makes of the live object (served version; None: there is none), as JSON.

        Raises Conflict, BadRequest for a configuration that the schema does not take, Invalid without a manager.
        """
        config = self._checked(config)
        before = json_codec.to_json(live) if live is not None else None
        return managed_fields.applied(
            before, config, self._shape, self._writer(APPLY, self._served.info.api_version), force=force
        )

    def _checked(self, config: Any) -> dict[str, Any]:
        info = self._served.info
        if not self._call.field_manager:
            error = FieldError.required("fieldManager", "is required for apply patch")
            raise Invalid.of("PatchOptions", "", [error], group="meta.k8s.io")
        if not isinstance(config, dict):
            raise BadRequest("error decoding YAML: the configuration is not an object")
        given = config.get("apiVersion"), config.get("kind")
        if given != (info.api_version, info.kind):
            raise BadRequest(
                f"the configuration is a {given[0]}, Kind={given[1]}; expected {info.api_version}, Kind={info.kind}"
            )
        metadata = config.get("metadata")
        if isinstance(metadata, dict) and metadata.get("managedFields"):
            raise BadRequest("metadata.managedFields must be nil")
        sink = json_codec.FieldSink()
        json_codec.from_json(info.message, config, sink)
        if sink.unknown:
            raise BadRequest(
                f"failed to create typed patch object ({self._call.info.namespace}/{self._call.info.name};"
                f" {info.api_version}, Kind={info.kind}): .{sink.unknown[0]}: field not declared in schema"
            )
        return config

    def _writer(self, operation: str, api_version: str) -> Writer:
        call = self._call
        manager = call.field_manager or call.user_agent.partition("/")[0][:_MAX_MANAGER] or "unknown"
        return Writer(
            manager=manager,
            operation=operation,
            api_version=api_version,
            now=self._now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            subresource=call.info.subresource,
            ignores=self._ignores(),
        )

    def _ignores(self) -> Any:
        """Which paths this door does not write. Source: GetResetFields of upstream's strategies."""
        if self._call.info.subresource == "status":
            return _is_not_status
        return _is_status if self._served.store.strategy.has_status else _is_nothing


def _shape(cls: Any) -> Shape:
    shape: Shape = cls.KIND.schema.shape if issubclass(cls, DynamicObject) else shape_of(descriptor_of(cls))
    return shape


def _is_followed(new: Any, old: Any) -> bool:
    """Whether somebody applies the object, or asks for ownership to be kept."""
    if new.metadata.managedFields or LAST_APPLIED in new.metadata.annotations:
        return True
    return old is not None and bool(old.metadata.managedFields or LAST_APPLIED in old.metadata.annotations)


def _is_status(path: Path) -> bool:
    return path[0] == _STATUS


def _is_not_status(path: Path) -> bool:
    return path[0] != _STATUS


def _is_nothing(_path: Path) -> bool:
    return False


def _put(obj: Any, entries: list[dict[str, Any]]) -> None:
    wanted = json_codec.from_json(type(obj.metadata), {"managedFields": entries})
    del obj.metadata.managedFields[:]
    obj.metadata.managedFields.MergeFrom(wanted.managedFields)
