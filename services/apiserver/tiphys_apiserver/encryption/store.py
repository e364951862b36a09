"""A store that keeps some values encrypted: it passes everything on and changes values on their way.

What can't be decrypted is handed out as it lies there: readers of objects leave such a value out of lists and
say so, so that one lost key hides nothing else. Values that another key wrote are written anew in the background.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

from tiphys_apiserver.encryption.configuration import Configuration
from tiphys_apiserver.encryption.transformers import Undecryptable
from tiphys_apiserver.storage.interface import (
    Event,
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
from tiphys_component.log import get_logger
from tiphys_component.metrics import Registry
from tiphys_component.proc import to_thread

_log = get_logger(__name__)

# Events end by themselves within the hour, which writing them anew would forget.
_SHORT_LIVED = "/registry/events/"
# Read and written anew at once, and how often the configuration's file is looked at.
_PAGE = 500
_RELOAD_S = 60.0


class EncryptedStore:
    """Implements Store over another one. reload reads the configuration's file; None keeps the one there is."""

    def __init__(
        self,
        inner: Store,
        configuration: Configuration,
        *,
        reload: Callable[[], Configuration | None],
        clock: Clock,
        metrics: Registry,
    ) -> None:
        self._inner = inner
        self._configuration = configuration
        self._reload = reload
        self._clock = clock
        self._unreadable = metrics.counter(
            "apiserver_storage_decryption_failures_total", "Stored values that could not be decrypted."
        )

    async def run(self) -> None:
        """Write anew what another key has written, now and whenever the configuration changes."""
        try:
            await self._rewrite()
            while True:
                await self._clock.sleep(_RELOAD_S)
                changed = await to_thread(self._reload)
                if changed is not None:
                    before, self._configuration = self._configuration, changed
                    _log.info("encryption configuration reloaded")
                    await self._rewrite()
                    await before.close()
        finally:
            await self._configuration.close()

    async def _rewrite(self) -> None:
        try:
            count = 0
            for prefix in self._configuration.prefixes():
                if prefix == _SHORT_LIVED:
                    continue
                count += await self._rewrite_under(prefix)
        except StorageError as err:
            # The next change or start does it: all that is there can still be read.
            _log.warning("stored values are not written anew", err=str(err))
            return
        if count:
            _log.info("stored values written anew with the first key", count=count)

    async def _rewrite_under(self, prefix: str) -> int:
        start_after, count = "", 0
        while True:
            page = await self._inner.list(prefix, limit=_PAGE, start_after=start_after)
            for item in page.items:
                count += await self._rewrite_one(item)
            if not page.more:
                return count
            start_after = page.items[-1].key

    async def _rewrite_one(self, item: KeyValue) -> bool:
        transformers = self._configuration.of(item.key)
        if transformers is None:
            return False
        try:
            data, is_stale = await transformers.decrypt(item.value, item.key.encode())
        except Undecryptable:
            # Told when it is read.
            return False
        if not is_stale:
            return False
        value = await transformers.encrypt(data, item.key.encode())
        try:
            await self._inner.update(item.key, value, expected_revision=item.mod_revision)
        except (RevisionMismatch, KeyMissing):
            # Somebody has written meanwhile, and so with the first key.
            return False
        return True

    # -- reading

    async def _open(self, item: KeyValue) -> KeyValue:
        value = await self._decrypted(item.key, item.value)
        return item if value is item.value else replace(item, value=value)

    async def _decrypted(self, key: str, value: bytes) -> bytes:
        transformers = self._configuration.of(key)
        if transformers is None:
            return value
        try:
            return (await transformers.decrypt(value, key.encode()))[0]
        except Undecryptable as err:
            self._unreadable.inc()
            _log.error("stored value can't be decrypted", key=key, err=str(err))
            return value

    async def get(self, key: str, *, revision: int = 0) -> KeyValue | None:
        """As Store.get."""
        found = await self._inner.get(key, revision=revision)
        return None if found is None else await self._open(found)

    async def list(self, prefix: str, *, revision: int = 0, limit: int = 0, start_after: str = "") -> ListPage:
        """As Store.list."""
        page = await self._inner.list(prefix, revision=revision, limit=limit, start_after=start_after)
        # Under the prefix of one resource one rule holds for all.
        if not page.items or (prefix.count("/") > 2 and self._configuration.of(page.items[0].key) is None):
            return page
        return replace(page, items=[await self._open(item) for item in page.items])

    def watch(self, prefix: str, *, after_revision: int) -> AbstractAsyncContextManager[Watch]:
        """As Store.watch."""
        return self._watch(prefix, after_revision)

    @asynccontextmanager
    async def _watch(self, prefix: str, after_revision: int) -> AsyncIterator[Watch]:
        async with self._inner.watch(prefix, after_revision=after_revision) as watch:
            yield _DecryptedWatch(watch, self._opened)

    async def _opened(self, event: Event) -> Event:
        if not event.value or self._configuration.of(event.key) is None:
            return event
        return replace(event, value=await self._decrypted(event.key, event.value))

    @property
    def spacing(self) -> int:
        """As Store.spacing."""
        return self._inner.spacing

    async def revision(self) -> int:
        """As Store.revision."""
        return await self._inner.revision()

    # -- writing

    async def _closed(self, key: str, value: bytes) -> bytes:
        transformers = self._configuration.of(key)
        return value if transformers is None else await transformers.encrypt(value, key.encode())

    async def create(self, key: str, value: bytes, *, ttl_s: int = 0) -> int:
        """As Store.create."""
        return await self._inner.create(key, await self._closed(key, value), ttl_s=ttl_s)

    async def create_together(self, keys: Sequence[NewKey]) -> Sequence[int]:
        """As Store.create_together."""
        closed = [replace(new, value=await self._closed(new.key, new.value)) for new in keys]
        return await self._inner.create_together(closed)

    async def update(self, key: str, value: bytes, *, expected_revision: int, ttl_s: int = 0) -> int:
        """As Store.update."""
        try:
            return await self._inner.update(
                key, await self._closed(key, value), expected_revision=expected_revision, ttl_s=ttl_s
            )
        except RevisionMismatch as err:
            raise await self._mismatch(err) from err

    async def write_each(self, writes: Sequence[NewKey | Replacement]) -> Sequence[int | StorageError]:
        """As Store.write_each."""
        closed = [replace(write, value=await self._closed(write.key, write.value)) for write in writes]
        outcomes = await self._inner.write_each(closed)
        return [await self._mismatch(one) if isinstance(one, RevisionMismatch) else one for one in outcomes]

    async def delete(self, key: str, *, expected_revision: int | None = None) -> KeyValue:
        """As Store.delete."""
        try:
            return await self._open(await self._inner.delete(key, expected_revision=expected_revision))
        except RevisionMismatch as err:
            raise await self._mismatch(err) from err

    async def _mismatch(self, err: RevisionMismatch) -> RevisionMismatch:
        return RevisionMismatch(err.key, None if err.current is None else await self._open(err.current))

    async def compact(self, revision: int) -> None:
        """As Store.compact."""
        await self._inner.compact(revision)

    async def close(self) -> None:
        """As Store.close."""
        await self._inner.close()


class _DecryptedWatch:
    """A watch whose events are readable."""

    def __init__(self, inner: Watch, opened: Callable[[Event], Awaitable[Event]]) -> None:
        self._inner = inner
        self._opened = opened

    @property
    def revision(self) -> int:
        return self._inner.revision

    async def wait_revision(self, revision: int) -> None:
        await self._inner.wait_revision(revision)

    def __aiter__(self) -> AsyncIterator[list[Event]]:
        return self

    async def __anext__(self) -> list[Event]:
        return [await self._opened(event) for event in await self._inner.__anext__()]
