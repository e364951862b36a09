from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import grpc
import pytest

from tiphys_sdk.csi.calls import Calls
from tiphys_sdk.csi.status import CsiError, not_found


@pytest.fixture
async def calls() -> AsyncIterator[Calls]:
    made = Calls()
    task = asyncio.create_task(made.run())
    await asyncio.sleep(0)
    yield made
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_second_call_for_a_volume_is_aborted_and_another_volume_is_served(calls: Calls) -> None:
    release = asyncio.Event()
    first = asyncio.create_task(calls.do(("volume a",), release.wait))
    await asyncio.sleep(0)
    with pytest.raises(CsiError, match="volume a") as raised:
        await calls.do(("volume a",), release.wait)
    assert raised.value.code is grpc.StatusCode.ABORTED

    async def other() -> str:
        return "done"

    assert await calls.do(("volume b",), other) == "done"
    release.set()
    assert await first
    assert calls.held == frozenset()


async def test_call_whose_caller_gave_up_keeps_its_lock_until_it_is_over(calls: Calls) -> None:
    release, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await release.wait()
        ended.set()

    caller = asyncio.create_task(calls.do(("volume a",), work))
    await asyncio.sleep(0)
    caller.cancel()
    with suppress(asyncio.CancelledError):
        await caller
    assert calls.held == {"volume a"}
    release.set()
    await ended.wait()
    await asyncio.sleep(0)
    assert calls.held == frozenset()


async def test_failure_reaches_the_caller_and_gives_the_lock_back(calls: Calls) -> None:
    async def fail() -> None:
        raise not_found("volume", "a")

    for _ in range(2):
        with pytest.raises(CsiError, match="does not exist"):
            await calls.do(("volume a",), fail)
