"""Random writes, disconnects and pauses: every watcher hears all that it chose, once, in the one order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.pod_cache import key, pod_value, running_cacher, selection, settle
from tiphys_apiserver.storage.cacher import Cacher, CacherSettings
from tiphys_apiserver.storage.list_query import ListQuery, WatchQuery
from tiphys_apiserver.storage.memory.store import MemoryStore
from tiphys_apiserver.storage.selection import Selection
from tiphys_apiserver.storage.subscription import Subscription
from tiphys_apiserver.storage.watch_event import EventBatch
from tiphys_component.clock import FakeClock

SELECTIONS = (
    selection(),
    selection(namespace="b"),
    selection("app=web"),
    selection(fields="spec.nodeName=n1"),
    selection("app!=web", "spec.nodeName!=n2", namespace="a"),
    selection(fields="metadata.name=p1"),
)
Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "delete", "disconnect", "pause", "resume", "turn", "bookmark"]),
        st.integers(0, 5),
        st.integers(0, 7),
    ),
    max_size=60,
)


@dataclass(slots=True)
class Watcher:
    """A client: lists, watches, loses its connection, resumes from what it saw last, lists anew when told Expired."""

    cacher: Cacher
    selection: Selection
    known: dict[str, int] = field(default_factory=dict)
    at: int = 0
    # Revisions in the order in which they were heard of since the last list.
    heard: list[int] = field(default_factory=list)
    subscription: Subscription | None = None
    expired: int = 0

    async def connect(self) -> None:
        if not self.at:
            found = await self.cacher.list(self.selection, ListQuery())
            self.known = {cached.key: cached.rv for cached in found.items}
            self.at = found.revision
            self.heard = []
        query = WatchQuery(str(self.at), allow_bookmarks=True)
        self.subscription = await self.cacher.watch(self.selection, self, query)

    def deliver(self, batch: EventBatch) -> None:
        for event in batch.events:
            if event.type == "BOOKMARK":
                assert event.object.rv >= self.at
                self.at = event.object.rv
                continue
            assert event.object.rv > self.at, "twice, or out of order"
            self.at = event.object.rv
            self.heard.append(self.at)
            name = event.object.key
            assert (name in self.known) == (event.type != "ADDED"), f"{event.type} of {name}"
            if event.type == "DELETED":
                del self.known[name]
            else:
                self.known[name] = event.object.rv

    def ended(self, error: object) -> None:
        self.subscription = None
        if error is not None:
            self.expired += 1
            self.at = 0

    async def make_whole(self) -> None:
        """Come to an end as a client would: connected, not paused, nothing on its way."""
        for _ in range(3):
            if self.subscription is None:
                try:
                    await self.connect()
                except Exception:
                    self.at = 0
                    await self.connect()
            if self.subscription is not None:
                self.subscription.resume()
            await settle()
        assert self.subscription is not None


async def run_step(
    store: MemoryStore, clock: FakeClock, watchers: Sequence[Watcher], step: tuple[str, int, int]
) -> None:
    verb, which, how = step
    namespace = "ab"[which % 2]
    name = f"p{which}"
    if verb in ("put", "delete"):
        current = await store.get(key(name, namespace))
        value = pod_value(
            name, namespace, node=f"n{how % 3}", labels={"app": "web"} if how % 2 else {"app": "db"}, note=str(how)
        )
        if verb == "delete":
            if current is not None:
                await store.delete(current.key)
        elif current is None:
            await store.create(key(name, namespace), value)
        else:
            await store.update(current.key, value, expected_revision=current.mod_revision)
        return
    watcher = watchers[which]
    if verb == "turn":
        await asyncio.sleep(0)
    elif verb == "bookmark":
        clock.advance(51)
    elif verb == "disconnect" and watcher.subscription is not None:
        watcher.subscription.close()
    elif verb == "pause" and watcher.subscription is not None:
        watcher.subscription.pause()
    elif verb == "resume":
        if watcher.subscription is not None:
            watcher.subscription.resume()
        else:
            await watcher.make_whole()


async def check_run(steps: Sequence[Step], history_events: int) -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    settings_ = CacherSettings(history_events=history_events, fresh_wait_s=1.0)
    async with running_cacher(store, clock, settings=settings_) as cacher:
        watchers = [Watcher(cacher, chosen) for chosen in SELECTIONS]
        for watcher in watchers:
            await watcher.connect()
        for step in steps:
            await run_step(store, clock, watchers, step)
        for watcher in watchers:
            await watcher.make_whole()
        await settle()
        for watcher in watchers:
            found = await cacher.list(watcher.selection)
            assert watcher.known == {cached.key: cached.rv for cached in found.items}
        # One order for all: whatever each heard is a part of what the watcher of everything could hear.
        assert all(watcher.heard == sorted(set(watcher.heard)) for watcher in watchers)
        if history_events > 100:
            assert all(watcher.expired == 0 for watcher in watchers)


@given(steps=STEPS)
@settings(max_examples=80, deadline=None)
async def test_A11_no_event_is_lost_or_told_twice_whatever_the_disconnects(
    steps: Sequence[Step],
) -> None:
    await check_run(steps, history_events=1000)


@given(steps=STEPS)
@settings(max_examples=80, deadline=None)
async def test_watchers_cut_off_by_a_short_memory_end_whole_after_listing_anew(
    steps: Sequence[Step],
) -> None:
    await check_run(steps, history_events=4)


@pytest.mark.slow
@given(steps=STEPS)
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck))
async def test_A11_no_event_is_lost_or_told_twice_in_a_long_run(steps: Sequence[Step]) -> None:
    await check_run(steps, history_events=1000)
    await check_run(steps, history_events=6)
