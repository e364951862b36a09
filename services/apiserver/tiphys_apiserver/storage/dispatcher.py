"""Hands changes to the watchers they concern: each change looks up its watchers, no watcher looks at each change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from tiphys_apimachinery.errors import APIError, Expired
from tiphys_apiserver.storage.objects import CachedObject
from tiphys_apiserver.storage.selection import FIELD, Matcher, Selection
from tiphys_apiserver.storage.subscription import CHUNK, Group, Sink, Subscription
from tiphys_apiserver.storage.watch_cache import RevisionTooOld, WatchCache
from tiphys_apiserver.storage.watch_event import BOOKMARK, Change, EventBatch, WatchEvent
from tiphys_component.clock import Clock, Timer
from tiphys_component.log import get_logger

_log = get_logger(__name__)

# Bookmarks written in one turn of the loop, so that thousands of idle watchers do not hold it up.
_BOOKMARKS_A_TURN = 200

# Where a group is found: by namespace, by the value of a field, or always.
_Trigger = tuple[str, str, str]
_ALWAYS: _Trigger = ("", "", "")
_NAMESPACE = "namespace"


class Dispatcher:
    """The watchers of one cache. ``progress`` tells a revision up to which the store has nothing more for it."""

    def __init__(
        self, cache: WatchCache, clock: Clock, *, progress: Callable[[], int], bookmark_interval_s: float = 50.0
    ) -> None:
        self._cache = cache
        self._clock = clock
        self._progress = progress
        self._bookmark_interval_s = bookmark_interval_s
        self._groups: dict[Selection, Group] = {}
        self._by_trigger: dict[_Trigger, list[Group]] = {}
        # Positions of the fields that some group is found by.
        self._trigger_fields: dict[str, int] = {}
        self._waiting: set[Subscription] = set()
        self._count = 0
        self._timer: Timer | None = None
        # For the metrics: changes handed out, events pushed to watchers, and watchers that were too slow.
        self.dispatched = 0
        self.sent = 0
        self.cut_off = 0

    def __len__(self) -> int:
        return self._count

    def group_of(self, matcher: Matcher) -> Group:
        """The group of a selection; add a subscription to it in the same turn."""
        group = self._groups.get(matcher.selection)
        if group is None:
            group = self._groups[matcher.selection] = Group(matcher)
            trigger = self._trigger(matcher)
            self._by_trigger.setdefault(trigger, []).append(group)
            if trigger[0] == FIELD:
                self._trigger_fields[trigger[1]] = self._cache.format.field_positions[trigger[1]]
        return group

    def _trigger(self, matcher: Matcher) -> _Trigger:
        if matcher.exact_name:
            return (FIELD, "metadata.name", matcher.exact_name)
        for pin in matcher.pins:
            if pin[0] == FIELD:
                return pin
        return (_NAMESPACE, "", matcher.namespace) if matcher.namespace else _ALWAYS

    def subscribe(
        self,
        matcher: Matcher,
        sink: Sink,
        *,
        after_revision: int,
        initial: list[CachedObject] | None = None,
        wants_bookmarks: bool = False,
        wants_end_bookmark: bool = False,
    ) -> Subscription:
        """Add a watcher that first gets ``initial``, then every event after the revision, from the next turn on."""
        subscription = Subscription(
            self,
            self.group_of(matcher),
            sink,
            position=after_revision,
            initial=initial,
            wants_bookmarks=wants_bookmarks,
            wants_end_bookmark=wants_end_bookmark,
        )
        subscription.group.waiting.add(subscription)
        self._waiting.add(subscription)
        self._count += 1
        subscription.schedule()
        if self._timer is None:
            self._timer = self._clock.call_later(self._bookmark_interval_s, self._send_bookmarks)
        return subscription

    def dispatch(self, changes: Sequence[Change]) -> None:
        """Hand changes that the cache has applied to everybody they concern."""
        if not changes or not self._count:
            return
        self.dispatched += len(changes)
        seen: dict[Group, list[WatchEvent]] = {}
        for change in changes:
            for group in self._groups_for(change):
                event = _event_for(group.matcher, change)
                if event is not None:
                    seen.setdefault(group, []).append(event)
        first = changes[0].revision
        for group, events in seen.items():
            for subscription in group.waiting:
                if not subscription.missed:
                    subscription.missed = True
                    subscription.position = first - 1
            if group.live:
                batch = EventBatch(events)
                for subscription in list(group.live):
                    if subscription in group.live:
                        self.deliver(subscription, batch)
        for change in changes:
            change.drop_events()
        if self._waiting:
            self._expire_waiting()

    def _groups_for(self, change: Change) -> Iterable[Group]:
        by_trigger = self._by_trigger
        found = list(by_trigger.get(_ALWAYS, ()))
        if len(found) == len(self._groups):
            return found
        seen = change.current or change.previous
        assert seen is not None
        found.extend(by_trigger.get((_NAMESPACE, "", seen.namespace), ()))
        for name, position in self._trigger_fields.items():
            values = {cached.field(position) for cached in (change.previous, change.current) if cached is not None}
            for value in values:
                found.extend(by_trigger.get((FIELD, name, value), ()))
        return found

    def deliver(self, subscription: Subscription, batch: EventBatch) -> None:
        """Push a batch; a connection that fails loses its own watch only."""
        try:
            subscription.sink.deliver(batch)
            self.sent += len(batch.events)
        except Exception as err:  # one broken connection must not cost the other watchers their events
            _log.error("watch ended because its connection failed", resource=self._cache.prefix, err=repr(err))
            subscription.finish(None)

    def catch_up(self, subscription: Subscription) -> None:
        """Deliver the next part of what a watcher has missed; when nothing is left it is live."""
        matcher = subscription.group.matcher
        if subscription.missed:
            try:
                missed = self._cache.changes_after(subscription.position)
            except RevisionTooOld:
                subscription.finish(self._cache.too_old(subscription.position))
                return
            events: list[WatchEvent] = []
            for change in missed:
                event = _event_for(matcher, change)
                subscription.position = change.revision
                if event is not None:
                    events.append(event)
                    if len(events) == CHUNK:
                        break
            subscription.missed = subscription.position < self._cache.revision
            if events:
                # Until the batch is taken the watcher is not live: deliver may pause it.
                self.deliver(subscription, EventBatch(events))
                if not subscription.paused and not subscription.is_closed:
                    subscription.schedule()
                return
        if not subscription.missed:
            subscription.group.waiting.discard(subscription)
            self._waiting.discard(subscription)
            subscription.group.live[subscription] = None

    def suspend(self, subscription: Subscription) -> None:
        """Take a paused watcher out of those that get events at once."""
        if subscription in subscription.group.live:
            del subscription.group.live[subscription]
            subscription.group.waiting.add(subscription)
            self._waiting.add(subscription)
            subscription.position = self._cache.revision
            subscription.missed = False

    def _expire_waiting(self) -> None:
        floor = self._cache.floor
        for subscription in [one for one in self._waiting if one.missed and one.position < floor]:
            self.cut_off += 1
            subscription.finish(self._cache.too_old(subscription.position))

    def forget(self, subscription: Subscription) -> None:
        """Remove a watcher that is over."""
        group = subscription.group
        group.live.pop(subscription, None)
        group.waiting.discard(subscription)
        self._waiting.discard(subscription)
        self._count -= 1
        if not group:
            self._drop(group)

    def _drop(self, group: Group) -> None:
        if self._groups.get(group.matcher.selection) is not group:
            return
        del self._groups[group.matcher.selection]
        trigger = self._trigger(group.matcher)
        groups = self._by_trigger[trigger]
        groups.remove(group)
        if not groups:
            del self._by_trigger[trigger]
            if trigger[0] == FIELD and not any(key[:2] == trigger[:2] for key in self._by_trigger):
                del self._trigger_fields[trigger[1]]

    def end_all(self, error: APIError | None) -> None:
        """End every watch: with Expired when events were lost, with None when the server stops."""
        for group in list(self._groups.values()):
            for subscription in [*group.live, *group.waiting]:
                subscription.finish(error)
        if self._timer is not None and not self._count:
            self._timer.cancel()
            self._timer = None

    def bookmark(self, revision: int, *, initial_events_end: bool = False) -> WatchEvent:
        """A new bookmark event."""
        cached = self._cache.format.bookmark(revision, initial_events_end=initial_events_end)
        return WatchEvent(BOOKMARK, cached, revision)

    def _send_bookmarks(self) -> None:
        self._timer = None
        if not self._count:
            return
        self._timer = self._clock.call_later(self._bookmark_interval_s, self._send_bookmarks)
        takers = [one for group in self._groups.values() for one in group.live if one.wants_bookmarks]
        if takers:
            self._send_bookmarks_to(takers)

    def _send_bookmarks_to(self, takers: list[Subscription]) -> None:
        # Made here and not once for all turns: an event may have come between.
        batch = EventBatch([self.bookmark(max(self._cache.revision, self._progress()))])
        for subscription in takers[:_BOOKMARKS_A_TURN]:
            if subscription in subscription.group.live:
                self.deliver(subscription, batch)
        rest = takers[_BOOKMARKS_A_TURN:]
        if rest:
            self.call_soon(lambda: self._send_bookmarks_to(rest))

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run in the next turn of the loop."""
        asyncio.get_running_loop().call_soon(callback)


def _event_for(matcher: Matcher, change: Change) -> WatchEvent | None:
    matches = matcher.matches
    previous, current = change.previous, change.current
    if matches is None:
        return change.seen(previous is not None, current is not None)
    return change.seen(
        previous is not None and matches(previous),
        current is not None and matches(current),
    )


def expired_by_gap() -> Expired:
    """The error of every watch whose cache had to begin anew."""
    return Expired("too old resource version: the server has lost sight of events in between, list again")
