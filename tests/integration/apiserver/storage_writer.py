"""A process to be killed: writes without end, and prints a line for each write that was acknowledged.

Usage: storage_writer.py sqlite|sqlite-packs PATH | storage_writer.py etcd|etcd-packs HOST:PORT
A line is "create KEY REVISION LENGTH", "update …" or "delete …"; before the first write of a key "begin KEY", and
"unknown KEY" when no answer came. With packs each writer creates PACK_SIZE keys together, all or none: the line is
"pack KEY@REVISION KEY@REVISION …".
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tiphys_apiserver.storage.etcd.connection import EtcdOptions
from tiphys_apiserver.storage.etcd.store import open_etcd
from tiphys_apiserver.storage.interface import NewKey, OutcomeUnknown, Store, StoreUnavailable
from tiphys_apiserver.storage.sqlite.store import SqliteStore
from tiphys_component.clock import SystemClock

PACK_SIZE = 7


@asynccontextmanager
async def opened(kind: str, where: str) -> AsyncIterator[Store]:
    if kind == "sqlite":
        store = await SqliteStore.open(Path(where), SystemClock())
        yield store
    else:
        async with open_etcd(EtcdOptions([where]), SystemClock()) as etcd:
            yield etcd


def say(line: str) -> None:
    """One whole line in one call, so that a kill leaves no half of it."""
    os.write(1, f"{line}\n".encode())


async def write_without_end(store: Store, run: str, writer: int) -> None:
    rng = random.Random(f"{run}-{writer}")
    for number in itertools.count():
        key = f"/registry/pods/{run}/{writer}-{number}"
        value = f"{key}:".encode() + rng.randbytes(rng.randrange(3000))
        say(f"begin {key}")
        try:
            revision = await store.create(key, value)
            say(f"create {key} {revision} {len(value)}")
            if number % 3 == 1:
                revision = await store.update(key, value + b"!", expected_revision=revision)
                say(f"update {key} {revision} {len(value) + 1}")
            elif number % 3 == 2:
                gone = await store.delete(key)
                say(f"delete {key} {gone.mod_revision} 0")
        except (OutcomeUnknown, StoreUnavailable):
            # The store was killed under us: what was not acknowledged may be there or not.
            say(f"unknown {key}")
            await asyncio.sleep(0.05)


async def write_packs_without_end(store: Store, run: str, writer: int) -> None:
    rng = random.Random(f"{run}-{writer}")
    for number in itertools.count():
        keys = [f"/registry/pods/{run}/{writer}-{number}-{place}" for place in range(PACK_SIZE)]
        pack = [NewKey(key, f"{key}:".encode() + rng.randbytes(rng.randrange(1000))) for key in keys]
        try:
            revisions = await store.create_together(pack)
        except (OutcomeUnknown, StoreUnavailable):
            await asyncio.sleep(0.05)
            continue
        say(f"pack {' '.join(f'{key}@{revision}' for key, revision in zip(keys, revisions, strict=True))}")


async def main(kind: str, where: str) -> None:
    kind, _, packs = kind.partition("-")
    write = write_packs_without_end if packs else write_without_end
    async with opened(kind, where) as store, asyncio.TaskGroup() as group:
        run = f"{await store.revision()}-{os.getpid()}"
        say("ready")
        for writer in range(16):
            group.create_task(write(store, run, writer))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
