"""Reads whole states of one resource out of the store, in pages, as objects."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tiphys_apiserver.storage.interface import KeyValue, Store
from tiphys_apiserver.storage.objects import CachedObject, ObjectFormat, UnreadableObject
from tiphys_apiserver.storage.selection import Matcher
from tiphys_component.log import get_logger

_log = get_logger(__name__)


class StateReader:
    """States under one prefix. A value that can't be read is logged and left out, so that it hides nothing else."""

    def __init__(self, store: Store, prefix: str, object_format: ObjectFormat, *, page: int) -> None:
        self._store = store
        self._prefix = prefix
        self._format = object_format
        self._page = page

    async def read(self, revision: int) -> tuple[list[CachedObject], int]:
        """All objects at a revision, 0 for the newest, and the revision they stand at. Raises Compacted."""
        objects: list[CachedObject] = []
        start_after = ""
        while True:
            page = await self._store.list(self._prefix, revision=revision, limit=self._page, start_after=start_after)
            revision = page.revision
            objects.extend(self._ingest(page.items))
            if not page.more:
                return objects, revision
            start_after = page.items[-1].key
            await asyncio.sleep(0)

    async def select(self, matcher: Matcher, revision: int, *, start_after: str, limit: int) -> Sequence[CachedObject]:
        """The objects chosen at a past revision, in key order; made for this one answer. Raises Compacted."""
        prefix = f"{self._prefix}{matcher.namespace}/" if matcher.namespace else self._prefix
        found: list[CachedObject] = []
        while True:
            page = await self._store.list(prefix, revision=revision, limit=self._page, start_after=start_after)
            for cached in self._ingest(page.items):
                if matcher.matches is None or matcher.matches(cached):
                    found.append(cached)
                    if limit and len(found) == limit:
                        return found
            if not page.more:
                return found
            start_after = page.items[-1].key

    def _ingest(self, items: Sequence[KeyValue]) -> list[CachedObject]:
        objects = []
        for item in items:
            try:
                objects.append(self._format.ingest(item.key, item.value, item.mod_revision))
            except UnreadableObject as err:
                _log.error("stored object is left out", key=item.key, rv=item.mod_revision, err=str(err))
        return objects
