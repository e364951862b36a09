"""Figures of the store and the watch cache. Run: python -m tests.bench.storage

Creates are durable, with values of 1.6 KB; lists and deliveries are CPU time of this process over pods of 0.7 KB.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from tests.support.pod_cache import key, pod_value, running_cacher, selection
from tiphys_apiserver.storage.list_query import WatchQuery
from tiphys_apiserver.storage.memory.store import MemoryStore
from tiphys_apiserver.storage.selection import Selection
from tiphys_apiserver.storage.sqlite.store import SqliteStore
from tiphys_apiserver.storage.watch_event import EventBatch
from tiphys_component.clock import SystemClock

PODS = 5000
WATCHERS = 200


def show(what: str, figure: float, unit: str) -> None:
    sys.stdout.write(f"{what:<48}{figure:>12,.1f} {unit}\n")


async def creates_per_second(in_flight: int, count: int) -> None:
    """Durable creates in SQLite."""
    with tempfile.TemporaryDirectory() as folder:
        store = await SqliteStore.open(Path(folder) / "store.db", SystemClock())
        value, numbers = os.urandom(1600), iter(range(count))

        async def write() -> None:
            for number in numbers:
                await store.create(f"/registry/pods/a/{number:07}", value)

        begin, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(write())
        show(f"SQLite, creates, {in_flight} in flight", count / (time.perf_counter() - begin), "per s")
        show("  CPU of one", (time.process_time() - cpu) / count * 1e6, "µs")
        await store.close()


class CountingSink:
    """Takes each batch's JSON, as a connection does before it writes."""

    def __init__(self) -> None:
        self.batches = 0

    def deliver(self, batch: EventBatch) -> None:
        """Count."""
        batch.frame("json")
        self.batches += 1

    def ended(self, error: object) -> None:
        """Nothing to do."""


async def cache_figures() -> None:
    """Lists, gets and deliveries of a cache of pods."""
    store = MemoryStore(SystemClock())
    async with running_cacher(store, SystemClock()) as cacher:
        for number in range(PODS):
            name = f"p{number:05}"
            await store.create(key(name), pod_value(name, node=f"n{number % 100}", labels={"app": f"a{number % 50}"}))

        async def join_list() -> None:
            found = await cacher.list(Selection())
            b",".join([cached.json() for cached in found.items])

        await join_list()
        await timed(f"list of {PODS:,}, JSON joined", join_list, 50)
        await timed("list by label, 100 of them", lambda: cacher.list(selection("app=a3")), 500)
        await timed("list by field, 50 of them", lambda: cacher.list(selection(fields="spec.nodeName=n3")), 500)
        await timed("get", lambda: cacher.get("a", "p00001"), 5000)
        sinks = [CountingSink() for _ in range(WATCHERS)]
        for sink in sinks:
            await cacher.watch(Selection(), sink, WatchQuery(str(cacher.revision)))
        items = (await store.list("/registry/pods/", limit=500)).items
        cpu = time.process_time()
        for item in items:
            await store.update(item.key, item.value, expected_revision=item.mod_revision)
        spent = time.process_time() - cpu
        show(f"delivery at {WATCHERS} watchers, without the socket", spent / sum(s.batches for s in sinks) * 1e6, "µs")


async def timed(what: str, call: Callable[[], Awaitable[object]], times: int) -> None:
    cpu = time.process_time()
    for _ in range(times):
        await call()
    show(what, (time.process_time() - cpu) / times * 1e6, "µs")


async def main() -> None:
    """All figures."""
    await creates_per_second(1, 2000)
    await creates_per_second(16, 30_000)
    await cache_figures()


if __name__ == "__main__":
    uvloop.run(main())
