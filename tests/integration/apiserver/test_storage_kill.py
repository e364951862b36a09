"""kill -9 in the middle of writes: what was acknowledged is there afterwards, whole and in order."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.etcd import EtcdMember
from tiphys_apiserver.storage.etcd.connection import EtcdOptions
from tiphys_apiserver.storage.etcd.store import open_etcd
from tiphys_apiserver.storage.interface import EventType, Store, StoreFull
from tiphys_apiserver.storage.sqlite.store import SqliteStore
from tiphys_component.clock import SystemClock

WRITER = Path(__file__).with_name("storage_writer.py")


@dataclass(slots=True)
class Acknowledged:
    """What a writer said before it died, the last word for each key."""

    revisions: dict[str, int] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    lengths: dict[str, int] = field(default_factory=dict)
    # The last thing begun under a key is not acknowledged: it may have happened or not.
    open_keys: set[str] = field(default_factory=set)
    # The writer lived on and got no answer: the same, for good.
    unknown: set[str] = field(default_factory=set)
    all_revisions: list[int] = field(default_factory=list)

    def read(self, output: str) -> None:
        for line in output.splitlines():
            words = line.split(" ")
            if words[0] == "begin":
                # The writer goes on to another key only when the one before is done.
                writer = words[1].rsplit("-", 1)[0]
                self.open_keys = {key for key in self.open_keys if key.rsplit("-", 1)[0] != writer}
                self.open_keys.add(words[1])
            elif words[0] == "unknown":
                self.unknown.add(words[1])
            elif words[0] in ("create", "update", "delete"):
                verb, key, revision, length = words
                self.revisions[key] = int(revision)
                self.lengths[key] = int(length)
                self.all_revisions.append(int(revision))
                if verb == "delete":
                    self.deleted.add(key)


class WriterProcess:
    """The child that writes, and a thread that gathers what it says."""

    def __init__(self, kind: str, where: str) -> None:
        self._process = subprocess.Popen([sys.executable, str(WRITER), kind, where], stdout=subprocess.PIPE)
        self._output: list[bytes] = []
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._gather)
        self._thread.start()

    def _gather(self) -> None:
        output = self._process.stdout
        assert isinstance(output, io.BufferedReader)
        while data := output.read1():
            self._output.append(data)
            self._started.set()

    def let_write(self, seconds: float) -> None:
        """Let it write for so long, from its first line on."""
        assert self._started.wait(30), "the writer did not begin"
        threading.Event().wait(seconds)

    def kill(self) -> str:
        """kill -9; everything it said."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return b"".join(self._output).decode()


async def check(store: Store, said: Acknowledged) -> None:
    """Every acknowledged write is there; every value is whole; no revision was given twice."""
    page = await store.list("/registry/pods/")
    found = {item.key: item for item in page.items}
    for key, revision in said.revisions.items():
        if key in said.deleted:
            assert key not in found, f"{key} was deleted at {revision} and is back"
        elif key not in said.open_keys and key not in said.unknown:
            assert key in found, f"{key} was acknowledged at {revision} and is lost"
            assert found[key].mod_revision == revision
            assert len(found[key].value) == said.lengths[key]
    for item in page.items:
        assert item.value.startswith(f"{item.key}:".encode())
    assert len(set(said.all_revisions)) == len(said.all_revisions)
    assert await store.revision() >= max(said.all_revisions, default=0)
    await check_history(store, said)


async def check_history(store: Store, said: Acknowledged) -> None:
    """A watch over all that was written tells each acknowledged revision once, in order."""
    newest = await store.revision()
    told: list[int] = []
    living: set[str] = set()
    async with store.watch("/registry/pods/", after_revision=1) as watch:
        while not told or told[-1] < max(said.all_revisions):
            for event in await watch.__anext__():
                told.append(event.mod_revision)
                (living.discard if event.type is EventType.DELETE else living.add)(event.key)
    assert told == sorted(set(told))
    assert set(said.all_revisions) <= set(told)
    if told[-1] == newest:
        assert living == {item.key for item in (await store.list("/registry/pods/")).items}


async def test_sqlite_keeps_every_acknowledged_write_through_kill_9(tmp_path: Path) -> None:
    path, said, rng = tmp_path / "store.db", Acknowledged(), random.Random(20261121)
    for _ in range(4):
        writer = WriterProcess("sqlite", str(path))
        writer.let_write(rng.uniform(0.02, 0.4))
        said.read(writer.kill())
    store = await SqliteStore.open(path, SystemClock())
    try:
        await check(store, said)
    finally:
        await store.close()
    assert len(said.all_revisions) > 100


@pytest.mark.slow
async def test_sqlite_keeps_every_acknowledged_write_through_many_kills(tmp_path: Path) -> None:
    path, said, rng = tmp_path / "store.db", Acknowledged(), random.Random(7)
    for _ in range(40):
        writer = WriterProcess("sqlite", str(path))
        writer.let_write(rng.expovariate(8))
        said.read(writer.kill())
        store = await SqliteStore.open(path, SystemClock())
        try:
            await check(store, said)
        finally:
            await store.close()


@pytest.fixture
def member(tmp_path: Path) -> Iterator[EtcdMember]:
    member = EtcdMember(tmp_path)
    member.start()
    yield member
    member.kill()


@pytest.mark.etcd
async def test_A8_etcd_keeps_every_acknowledged_write_when_server_and_store_are_killed(member: EtcdMember) -> None:
    said, rng = Acknowledged(), random.Random(42)
    for round_number in range(3):
        writer = WriterProcess("etcd", member.endpoint)
        writer.let_write(rng.uniform(0.1, 0.4))
        if round_number % 2 == 0:
            member.kill()
            member.start()
            writer.let_write(0.5)
        said.read(writer.kill())
    async with open_etcd(EtcdOptions([member.endpoint]), SystemClock()) as store:
        await check(store, said)
    assert len(said.all_revisions) > 100


@pytest.mark.etcd
async def test_etcd_watch_goes_on_without_a_gap_after_etcd_was_killed(member: EtcdMember) -> None:
    async with open_etcd(EtcdOptions([member.endpoint]), SystemClock()) as store:
        start = await store.revision()
        async with store.watch("/registry/pods/", after_revision=start) as watch:
            before = await store.create("/registry/pods/a/one", b"1")
            assert [event.mod_revision for event in await watch.__anext__()] == [before]
            member.kill()
            member.start()
            async with open_etcd(EtcdOptions([member.endpoint]), SystemClock()) as other:
                after = await other.create("/registry/pods/a/two", b"2")
            end = time.monotonic() + 20
            told: list[int] = []
            while not told and time.monotonic() < end:
                told += [event.mod_revision for event in await watch.__anext__()]
            assert told == [after]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_full_disk_is_told_and_loses_nothing_acknowledged(small_disk: Path) -> None:
    said: dict[str, int] = {}
    store = await SqliteStore.open(small_disk / "store.db", SystemClock())
    refused = None
    for number in range(2000):
        try:
            said[f"/registry/pods/a/{number}"] = await store.create(f"/registry/pods/a/{number}", bytes(3000))
        except StoreFull as err:
            refused = err
            break
    assert refused is not None
    assert f"free space on the file system of {small_disk}" in str(refused)
    assert {item.key: item.mod_revision for item in (await store.list("/registry/")).items} == said
    await store.close()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    store = await SqliteStore.open(small_disk / "store.db", SystemClock())
    assert {item.key: item.mod_revision for item in (await store.list("/registry/")).items} == said
    await store.create("/registry/pods/a/new", b"room again")
    await store.close()
