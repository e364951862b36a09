"""Serves get, list and watch of one resource from memory, kept true by one watch on the store.

Reads are as fresh as asked for. A read that must miss nothing asks the store for its revision (free with SQLite and
memory, one small call to etcd, shared by all who wait) and waits until the cache has seen it. The state of a past
revision is the present with the remembered changes undone; older ones come from the store as long as it has them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from tiphys_apimachinery.errors import APIError, Expired, ServiceUnavailable
from tiphys_apiserver.storage.dispatcher import Dispatcher, expired_by_gap
from tiphys_apiserver.storage.interface import (
    Compacted,
    Event,
    FutureRevision,
    StorageError,
    Store,
    StoreClosed,
    StoreUnavailable,
    Watch,
)
from tiphys_apiserver.storage.list_query import (
    ContinueExpired,
    Freshness,
    ListPlan,
    ListQuery,
    WatchQuery,
    make_token,
    parse_resource_version,
    plan_list,
    plan_watch,
    too_large,
)
from tiphys_apiserver.storage.objects import CachedObject, ObjectFormat, UnreadableObject
from tiphys_apiserver.storage.selection import Matcher, Selection
from tiphys_apiserver.storage.state_reader import StateReader
from tiphys_apiserver.storage.subscription import Sink, Subscription
from tiphys_apiserver.storage.watch_cache import RevisionTooOld, WatchCache
from tiphys_apiserver.storage.watch_event import Change
from tiphys_apiserver.storage.watch_stream import WatchStream
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.deadlines import Deadlines
from tiphys_component.log import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CacherSettings:
    """Bounds of one cache."""

    # Changes kept for watches that resume: at most so many, and so many bytes.
    history_events: int = 8192
    history_bytes: int = 16 << 20
    # Longest wait for a revision before the caller gets 504. Source: kube-apiserver's watch cache.
    fresh_wait_s: float = 3.0
    # Under a minute, as clients rely on one a minute.
    bookmark_interval_s: float = 50.0
    hot_json_bytes: int = 64 << 20
    # Keys of one page while filling from the store.
    fill_page: int = 1000
    # The state loaded at start is so many writes old, so that watches begun before a restart go on after it.
    resume_revisions: int = 1000


@dataclass(frozen=True, slots=True)
class CachedList:
    """Objects in key order as they stood at ``revision``.

    ``remaining`` is None where a selector makes it dear to know, as in Kubernetes.
    """

    items: Sequence[CachedObject]
    revision: int
    continue_token: str = ""
    remaining: int | None = None


class Cacher:
    """The cache of the objects under ``prefix`` (which ends with a slash). ``run`` must run for it to be filled."""

    def __init__(
        self,
        prefix: str,
        object_format: ObjectFormat,
        store: Store,
        clock: Clock,
        *,
        settings: CacherSettings = CacherSettings(),
    ) -> None:
        if not prefix.endswith("/"):
            raise ValueError(f"the prefix of a cache ends with a slash: {prefix!r}")
        self.prefix = prefix
        self.format = object_format
        self._store = store
        self._clock = clock
        self._settings = settings
        self._states = StateReader(store, prefix, object_format, page=settings.fill_page)
        self._cache = WatchCache(
            prefix,
            object_format,
            capacity=settings.history_events,
            capacity_bytes=settings.history_bytes,
            hot_json_limit_bytes=settings.hot_json_bytes,
        )
        self._dispatcher = Dispatcher(
            self._cache, clock, progress=lambda: self.revision, bookmark_interval_s=settings.bookmark_interval_s
        )
        self._deadlines = Deadlines(settings.fresh_wait_s)
        self._watch: Watch | None = None
        # Set while a watch is running, and the revision that makes the first fill complete.
        self._filled = asyncio.Event()
        self._fill_revision = 0
        # Set once the present watch has reached that revision: it never goes back.
        self._is_caught_up = False
        self._version = 0
        # For the metrics: how often it was filled, and events that the store has told.
        self.fills = 0
        self.received = 0

    # -- keeping true

    async def run(self) -> None:
        """Fill the cache and follow the store until it is closed; a lost connection is tried again."""
        backoff = Backoff(base_s=0.05, cap_s=5.0)
        try:
            while True:
                try:
                    await self._fill_and_follow()
                    return
                except StoreClosed:
                    return
                except Compacted as err:
                    _log.warning("watch cache begins anew", prefix=self.prefix, err=str(err))
                    backoff.reset()
                except (StoreUnavailable, FutureRevision) as err:
                    _log.warning("store can't be read, trying again", prefix=self.prefix, err=str(err))
                    await self._clock.sleep(backoff.next())
        finally:
            self._stop_watch()
            self._dispatcher.end_all(None)

    async def _fill_and_follow(self) -> None:
        now = await self._store.revision()
        revision = await self._fill(now)
        async with self._store.watch(self.prefix, after_revision=revision) as watch:
            self._watch = watch
            self._fill_revision = now
            self._filled.set()
            try:
                async for events in watch:
                    self._apply(events)
            finally:
                self._stop_watch()

    def _stop_watch(self) -> None:
        self._filled.clear()
        self._is_caught_up = False
        self._watch = None

    async def _fill(self, now: int) -> int:
        """Load a state to begin with.

        The first time it is a little old, where the store has it, so that watches resume across restarts. Later it is
        the newest: the watches have been cut off anyway, and readers must not see the past come back.
        """
        was_filled = self._cache.revision > 0
        spacing = self._store.spacing
        # At the least what was there before the first write: 1, or the last revision that the store counts to it.
        wanted = 0 if was_filled else max(2 * spacing - 1, now - self._settings.resume_revisions * spacing)
        try:
            objects, revision = await self._states.read(wanted)
        except Compacted as err:
            try:
                objects, revision = await self._states.read(err.revision)
            except Compacted:
                objects, revision = await self._states.read(0)
        self._cache.replace(objects, revision)
        self.fills += 1
        self._version += 1
        if was_filled:
            self._dispatcher.end_all(expired_by_gap())
        return revision

    def _apply(self, events: Sequence[Event]) -> None:
        self.received += len(events)
        changes: list[Change] = []
        cache = self._cache
        for event in events:
            try:
                change = cache.apply(event)
            except UnreadableObject as err:
                _log.error("stored object is left out", key=event.key, rv=event.mod_revision, err=str(err))
                change = cache.apply_unreadable(event)
            if change is not None:
                changes.append(change)
        self._version += len(changes)
        self._dispatcher.dispatch(changes)
        cache.free_json()

    # -- facts

    @property
    def revision(self) -> int:
        """Every change up to here is in the cache."""
        watch = self._watch
        return self._cache.revision if watch is None else max(self._cache.revision, watch.revision)

    @property
    def version(self) -> int:
        """Grows with every change of the cache; 0 before it is filled."""
        # Asked several times by each write.
        return self._version if self._is_caught_up or self.is_ready else 0

    @property
    def is_ready(self) -> bool:
        """Whether the cache is filled and follows the store."""
        if not self._is_caught_up:
            # Asked several times a request: the answer is kept.
            self._is_caught_up = self._filled.is_set() and self.revision >= self._fill_revision
        return self._is_caught_up

    @property
    def watchers(self) -> int:
        """How many watches run."""
        return len(self._dispatcher)

    @property
    def dispatched(self) -> int:
        """Changes handed to watchers so far."""
        return self._dispatcher.dispatched

    @property
    def sent(self) -> int:
        """Events pushed to watchers so far, one by one."""
        return self._dispatcher.sent

    @property
    def cut_off(self) -> int:
        """Watches that were ended because they read too slowly."""
        return self._dispatcher.cut_off

    def __len__(self) -> int:
        return len(self._cache)

    def count(self, namespace: str = "") -> int:
        """How many objects the cache has of a namespace, or of all."""
        return self._cache.count(namespace) if namespace else len(self._cache)

    async def ready(self) -> None:
        """Return once the cache is filled and follows the store."""
        await self._filled.wait()
        if self._watch is not None:
            await self._watch.wait_revision(self._fill_revision)

    async def wait_applied(self, revision: int) -> None:
        """Return once a write is in the cache: call it after one's own write, where the next read skips the check.

        Raises Timeout after the settings' fresh_wait_s, ServiceUnavailable while the cache is not filled.
        """
        if self._filled.is_set() and self.revision >= revision:
            return
        try:
            async with asyncio.timeout(self._settings.fresh_wait_s):
                await self._filled.wait()
                watch = self._watch
                if watch is not None:
                    await watch.wait_revision(revision)
        except TimeoutError as err:
            if not self.is_ready:
                raise _unavailable(self.prefix) from err
            raise too_large(revision, self.revision) from err
        except StoreClosed as err:
            raise _unavailable(self.prefix) from err

    async def _wait_fresh(self, freshness: Freshness, revision: int) -> None:
        if freshness is Freshness.CONSISTENT:
            try:
                # Most stores know at once, and a timer of its own would cost a read more than the question.
                with self._deadlines.begin():
                    revision = await self._store.revision()
            except (StorageError, TimeoutError) as err:
                raise ServiceUnavailable(f"the store does not answer: {str(err) or 'time-out'}") from err
        await self.wait_applied(max(revision, self._fill_revision))

    # -- reading

    def get_nowait(self, namespace: str, name: str) -> CachedObject | None:
        """The object as the cache has it now; None too while it is not filled. ``namespace`` "" where there is none."""
        return self._cache.objects.get(self.key(namespace, name))

    async def get(self, namespace: str, name: str, *, resource_version: str = "") -> CachedObject | None:
        """The object, as fresh as asked: "" misses nothing, "0" is whatever is here, else not older. None if absent."""
        revision = parse_resource_version(resource_version)
        freshness = Freshness.CONSISTENT if resource_version == "" else Freshness.NOT_OLDER
        await self._wait_fresh(freshness, revision)
        return self.get_nowait(namespace, name)

    def key(self, namespace: str, name: str) -> str:
        """The store's key of an object."""
        return f"{self.prefix}{namespace}/{name}" if namespace else self.prefix + name

    def by_owner(self, uid: str) -> list[CachedObject]:
        """The objects that name this uid among their owners, as the cache has them now."""
        return self._cache.select(Matcher(Selection(owner_uid=uid), self.format))

    async def list(self, selection: Selection, query: ListQuery = ListQuery()) -> CachedList:  # noqa: B008  frozen
        """The objects chosen. Raises Invalid, BadRequest, Expired (a forgotten revision), Timeout (a future one)."""
        plan = plan_list(query)
        matcher = Matcher(selection, self.format)
        start_after = self._base(selection) + plan.start_after if plan.start_after else ""
        if plan.freshness is Freshness.EXACT:
            await self.wait_applied(plan.revision)
            found, revision = await self._select_at(matcher, plan, start_after, query.limit)
        else:
            await self._wait_fresh(plan.freshness, plan.revision)
            limit = query.limit and query.limit + 1
            found = self._cache.select(matcher, start_after=start_after, limit=limit)
            revision = self.revision
        return self.page(found, revision, matcher, limit=query.limit)

    def _base(self, selection: Selection) -> str:
        return f"{self.prefix}{selection.namespace}/" if selection.namespace else self.prefix

    async def _select_at(
        self, matcher: Matcher, plan: ListPlan, start_after: str, limit: int
    ) -> tuple[Sequence[CachedObject], int]:
        more = limit and limit + 1
        try:
            return self._cache.select_at(matcher, plan.revision, start_after=start_after, limit=more), plan.revision
        except RevisionTooOld:
            pass
        try:
            found = await self._states.select(matcher, plan.revision, start_after=start_after, limit=more)
            return found, plan.revision
        except Compacted as err:
            if plan.is_continued:
                raise ContinueExpired(plan.start_after) from err
            raise Expired(f"The resourceVersion for the provided list is too old: {plan.revision}.") from err
        except FutureRevision as err:
            raise too_large(plan.revision, err.revision) from err
        except StorageError as err:
            raise ServiceUnavailable(str(err)) from err

    def page(self, found: Sequence[CachedObject], revision: int, matcher: Matcher, *, limit: int) -> CachedList:
        """What was found, cut to the limit; where more was found, with a token to go on with."""
        if not limit or len(found) <= limit:
            return CachedList(found, revision)
        base = self._base(matcher.selection)
        items = found[:limit]
        token = make_token(revision, items[-1].key[len(base) :])
        return CachedList(items, revision, token, self._remaining(matcher, revision, items[-1].key))

    def _remaining(self, matcher: Matcher, revision: int, last: str) -> int | None:
        if matcher.selection.labels or matcher.selection.fields:
            return None
        try:
            return self._cache.count_at(matcher.namespace, revision, start_after=last)
        except RevisionTooOld:
            return None

    # -- watching

    async def watch(self, selection: Selection, sink: Sink, query: WatchQuery = WatchQuery()) -> Subscription:  # noqa: B008
        """Push the events of the objects chosen to a sink, beginning in the next turn of the loop.

        With a revision the events right after it; without, or with "0", the state as ADDED events first.
        Raises Expired when events after the revision are forgotten, Invalid, BadRequest, Timeout.
        """
        after = plan_watch(query)
        matcher = Matcher(selection, self.format)
        begins_with_state = query.send_initial_events or (query.send_initial_events is None and not after)
        if after is None:
            await self._wait_fresh(Freshness.CONSISTENT, 0)
        else:
            await self._wait_fresh(Freshness.NOT_OLDER, after)
        if begins_with_state or not after:
            initial = self._cache.select(matcher) if begins_with_state else None
            return self._dispatcher.subscribe(
                matcher,
                sink,
                after_revision=self.revision,
                initial=initial,
                wants_bookmarks=query.allow_bookmarks,
                wants_end_bookmark=bool(query.send_initial_events) and query.allow_bookmarks,
            )
        if after < self._cache.floor:
            raise self._cache.too_old(after)
        return self._dispatcher.subscribe(matcher, sink, after_revision=after, wants_bookmarks=query.allow_bookmarks)

    async def stream(self, selection: Selection, query: WatchQuery = WatchQuery()) -> WatchStream:  # noqa: B008
        """The same as ``watch`` for a reader of its own: iterate over the stream, and close it."""
        stream = WatchStream()
        stream.attach(await self.watch(selection, stream, query))
        return stream


def _unavailable(prefix: str) -> APIError:
    return ServiceUnavailable(f"the watch cache of {prefix} is not filled yet; try again")
