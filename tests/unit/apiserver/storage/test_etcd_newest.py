"""Reads that must miss nothing share the question for etcd's newest revision, but no answer older than they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.promptness import PROMPTLY_S
from tiphys_apiserver.storage.etcd import newest as newest_module
from tiphys_apiserver.storage.etcd.newest import NewestRevision
from tiphys_apiserver.storage.interface import StorageError, StoreUnavailable


class Etcd:
    """Answers with the revision at the moment of the question, once it is let."""

    def __init__(self) -> None:
        self.revision = 1
        self.questions = 0
        self._asked = asyncio.Semaphore(0)
        self._seen = 0
        self.may_answer = asyncio.Event()
        self.fault: StorageError | None = None

    async def ask(self) -> int:
        self.questions += 1
        self._asked.release()
        revision = self.revision
        await self.may_answer.wait()
        if self.fault is not None:
            raise self.fault
        return revision

    async def wait_asked(self, questions: int) -> None:
        while self._seen < questions:
            await self._asked.acquire()
            self._seen += 1


@asynccontextmanager
async def reading(etcd: Etcd) -> AsyncIterator[tuple[NewestRevision, asyncio.TaskGroup]]:
    async with asyncio.timeout(PROMPTLY_S), asyncio.TaskGroup() as group:
        yield NewestRevision(etcd.ask, group), group


async def test_A15_reads_at_once_are_one_question() -> None:
    etcd = Etcd()
    etcd.may_answer.set()
    async with reading(etcd) as (newest, group):
        reads = [group.create_task(newest.read()) for _ in range(16)]
    assert [read.result() for read in reads] == [1] * 16
    assert etcd.questions == 1


async def test_A15_read_that_begins_while_one_is_asked_shares_the_next_question() -> None:
    etcd = Etcd()
    async with reading(etcd) as (newest, group):
        first = group.create_task(newest.read())
        await etcd.wait_asked(1)
        # Acknowledged before the later reads begin: an answer to the question under way does not know it.
        etcd.revision = 2
        later = []
        for _ in range(15):
            later.append(group.create_task(newest.read()))
            await asyncio.sleep(0)
        assert etcd.questions == 1
        etcd.may_answer.set()
    assert (first.result(), {read.result() for read in later}) == (1, {2})
    assert etcd.questions == 2


async def test_A15_read_that_is_given_up_takes_no_answer_from_the_others() -> None:
    etcd = Etcd()
    async with reading(etcd) as (newest, group):
        given_up, other = group.create_task(newest.read()), group.create_task(newest.read())
        await etcd.wait_asked(1)
        given_up.cancel()
        etcd.may_answer.set()
    assert other.result() == 1


async def test_error_is_told_to_each_and_the_next_question_is_asked() -> None:
    etcd = Etcd()
    etcd.fault = StoreUnavailable("away")
    etcd.may_answer.set()
    async with reading(etcd) as (newest, _):
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="away"):
                await newest.read()
        etcd.fault = None
        assert await newest.read() == 1


async def test_question_without_an_answer_holds_up_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest_module, "_PATIENCE_S", 0.001)
    etcd = Etcd()
    async with reading(etcd) as (newest, group):
        group.create_task(newest.read())
        await etcd.wait_asked(1)
        group.create_task(newest.read())
        await etcd.wait_asked(2)
        etcd.may_answer.set()
