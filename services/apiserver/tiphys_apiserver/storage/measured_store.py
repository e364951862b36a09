"""A store that tells how long it takes, under the names that Kubernetes has for etcd, whichever store it is.

Source: kubernetes apiserver pkg/storage/etcd3/metrics/metrics.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from tiphys_apiserver.storage.interface import (
    KeyExists,
    KeyMissing,
    KeyValue,
    ListPage,
    NewKey,
    Replacement,
    RevisionMismatch,
    StorageError,
    Store,
    Watch,
)
from tiphys_component.clock import Clock
from tiphys_component.metrics import Registry

_LABELS = ("operation", "group", "resource")
_BUCKETS_S = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60)
# Answers of the store and no faults of it.
_ANSWERS = (KeyExists, KeyMissing, RevisionMismatch)
Place = tuple[str, str]
_Series = tuple[Any, Any, Any]


class MeasuredStore:
    """Implements Store over another one. place_of gives group and resource of a key's first parts."""

    def __init__(
        self, inner: Store, clock: Clock, metrics: Registry, place_of: Callable[[str], Place] | None = None
    ) -> None:
        self._inner = inner
        self._now = clock.monotonic
        self._place_of = place_of or read_place
        self._duration = metrics.quick_histogram(
            "etcd_request_duration_seconds", "Seconds that the store took.", _LABELS, _BUCKETS_S
        )
        self._total = metrics.counter("etcd_requests_total", "Requests to the store.", _LABELS)
        self._errors = metrics.counter("etcd_request_errors_total", "Requests that the store failed to do.", _LABELS)
        self._series: dict[tuple[str, str], _Series] = {}
        metrics.on_reset(self._reset)

    def _reset(self) -> None:
        for family in (self._duration, self._total, self._errors):
            family.clear()
        self._series.clear()

    def _bound(self, operation: str, key: str) -> _Series:
        # The key's first two parts name the resource, or its group: few enough to keep each.
        end = key.find("/", key.find("/", 1) + 1)
        place = (operation, key[:end])
        found = self._series.get(place)
        if found is None:
            labels = (operation, *self._place_of(key))
            found = (self._duration.labels(*labels), self._total.labels(*labels), self._errors.labels(*labels))
            if "." not in place[1]:
                # Under the name of a group lie several resources.
                self._series[place] = found
        return found

    async def get(self, key: str, *, revision: int = 0) -> KeyValue | None:
        """The key as it is now, or stood at ``revision``."""
        began = self._now()
        duration, total, errors = self._bound("get", key)
        total.inc()
        try:
            return await self._inner.get(key, revision=revision)
        except StorageError:
            errors.inc()
            raise
        finally:
            duration.observe(self._now() - began)

    async def list(self, prefix: str, *, revision: int = 0, limit: int = 0, start_after: str = "") -> ListPage:
        """Keys that begin with ``prefix``."""
        began = self._now()
        duration, total, errors = self._bound("list", prefix)
        total.inc()
        try:
            return await self._inner.list(prefix, revision=revision, limit=limit, start_after=start_after)
        except StorageError:
            errors.inc()
            raise
        finally:
            duration.observe(self._now() - began)

    async def create(self, key: str, value: bytes, *, ttl_s: int = 0) -> int:
        """Write a key that is not there."""
        began = self._now()
        duration, total, errors = self._bound("create", key)
        total.inc()
        try:
            return await self._inner.create(key, value, ttl_s=ttl_s)
        except StorageError as err:
            if not isinstance(err, _ANSWERS):
                errors.inc()
            raise
        finally:
            duration.observe(self._now() - began)

    async def create_together(self, keys: Sequence[NewKey]) -> Sequence[int]:
        """Write keys that are not there, all or none; one request."""
        began = self._now()
        duration, total, errors = self._bound("create", keys[0].key if keys else "")
        total.inc()
        try:
            return await self._inner.create_together(keys)
        except StorageError as err:
            if not isinstance(err, _ANSWERS):
                errors.inc()
            raise
        finally:
            duration.observe(self._now() - began)

    async def update(self, key: str, value: bytes, *, expected_revision: int, ttl_s: int = 0) -> int:
        """Replace a key that is at ``expected_revision``."""
        began = self._now()
        duration, total, errors = self._bound("update", key)
        total.inc()
        try:
            return await self._inner.update(key, value, expected_revision=expected_revision, ttl_s=ttl_s)
        except StorageError as err:
            if not isinstance(err, _ANSWERS):
                errors.inc()
            raise
        finally:
            duration.observe(self._now() - began)

    async def write_each(self, writes: Sequence[NewKey | Replacement]) -> Sequence[int | StorageError]:
        """Write each by itself; a request for all new keys, and one for all that are replaced."""
        began = self._now()
        outcomes: Sequence[int | StorageError] = ()
        try:
            outcomes = await self._inner.write_each(writes)
            return outcomes
        finally:
            took_s = self._now() - began
            bound = {isinstance(write, NewKey): write for write in writes}
            for is_new, write in bound.items():
                duration, total, errors = self._bound("create" if is_new else "update", write.key)
                total.inc()
                duration.observe(took_s)
                if not outcomes or any(not isinstance(one, (int, *_ANSWERS)) for one in outcomes):
                    errors.inc()

    async def delete(self, key: str, *, expected_revision: int | None = None) -> KeyValue:
        """Delete a key."""
        began = self._now()
        duration, total, errors = self._bound("delete", key)
        total.inc()
        try:
            return await self._inner.delete(key, expected_revision=expected_revision)
        except StorageError as err:
            if not isinstance(err, _ANSWERS):
                errors.inc()
            raise
        finally:
            duration.observe(self._now() - began)

    def watch(self, prefix: str, *, after_revision: int) -> AbstractAsyncContextManager[Watch]:
        """Every event under ``prefix``; not timed."""
        return self._inner.watch(prefix, after_revision=after_revision)

    @property
    def spacing(self) -> int:
        """As Store.spacing."""
        return self._inner.spacing

    async def revision(self) -> int:
        """The newest revision; asked before most reads, and not timed."""
        return await self._inner.revision()

    async def compact(self, revision: int) -> None:
        """Forget what was overwritten or deleted up to ``revision``."""
        await self._inner.compact(revision)

    async def close(self) -> None:
        """Close the inner store."""
        await self._inner.close()


def read_place(key: str) -> Place:
    """Group and resource of a key: /registry/pods/…, or /registry/example.com/widgets/…."""
    parts = key.split("/")
    first, second = (*parts[2:4], "", "")[:2]
    return (first, second) if "." in first else ("", first)
