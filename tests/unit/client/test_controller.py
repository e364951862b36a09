"""The frame of a controller."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tiphys_apimachinery.errors import Conflict, ServiceUnavailable
from tiphys_client.controller import Controller, RequeueAfter, Terminal
from tiphys_client.workqueue import RateLimitingQueue
from tiphys_client.workqueue_metrics import WorkMetrics
from tiphys_component.clock import FakeClock
from tiphys_component.metrics import Registry


def make(reconcile: Callable[[str], Awaitable[RequeueAfter | None]]) -> tuple[Controller[str], FakeClock, Registry]:
    clock, registry = FakeClock(), Registry()
    queue: RateLimitingQueue[str] = RateLimitingQueue(clock)
    return Controller("test", queue, reconcile, metrics=WorkMetrics(registry)), clock, registry


async def _cancelled_inside() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("error", "result", "again"),
    [
        pytest.param(None, "success", False, id="done"),
        pytest.param(ServiceUnavailable("down"), "error", True, id="retriable"),
        pytest.param(KeyError("bug"), "error", True, id="bug"),
        pytest.param(Conflict("stale"), "requeue", True, id="conflict"),
        pytest.param(Terminal("never"), "terminal", False, id="terminal"),
        pytest.param(asyncio.CancelledError(), "error", True, id="something inside was cancelled"),
    ],
)
async def test_outcome_decides_what_follows(error: BaseException | None, result: str, again: bool) -> None:
    async def reconcile(_key: str) -> None:
        if error is not None:
            raise error

    controller, clock, registry = make(reconcile)
    controller._queue.add("a/b")
    await controller.process_next()
    assert registry.value("controller_runtime_reconcile_total", controller="test", result=result) == 1
    clock.advance(0.005)
    assert len(controller._queue) == (1 if again else 0)
    assert controller._queue.failures("a/b") == (1 if again else 0)


async def test_requeue_after_looks_again_then() -> None:
    async def reconcile(_key: str) -> RequeueAfter:
        return RequeueAfter(30)

    controller, clock, _ = make(reconcile)
    controller._queue.add("a/b")
    await controller.process_next()
    clock.advance(29)
    assert len(controller._queue) == 0
    clock.advance(1)
    assert len(controller._queue) == 1


async def test_a_slow_reconciliation_is_a_failure() -> None:
    async def reconcile(_key: str) -> None:
        await asyncio.Event().wait()

    clock = FakeClock()
    queue: RateLimitingQueue[str] = RateLimitingQueue(clock)
    controller = Controller("slow", queue, reconcile, timeout_s=0.01)
    queue.add("a")
    await controller.process_next()
    assert queue.failures("a") == 1


async def test_workers_share_the_queue_and_never_an_item() -> None:
    working: set[str] = set()
    most = 0
    seen: list[str] = []

    async def reconcile(key: str) -> None:
        nonlocal most
        assert key not in working
        working.add(key)
        most = max(most, len(working))
        await asyncio.sleep(0)
        working.discard(key)
        seen.append(key)

    queue: RateLimitingQueue[str] = RateLimitingQueue(FakeClock())
    controller = Controller("many", queue, reconcile, workers=3)
    task = asyncio.ensure_future(controller.run())
    for _ in range(3):
        for key in "abcde":
            queue.add(key)
        await asyncio.sleep(0)
    for _ in range(30):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set(seen) == set("abcde")
    assert most == 3


def test_a_controller_without_workers_is_refused() -> None:
    async def reconcile(_key: str) -> None:
        return None

    with pytest.raises(ValueError, match="at least one worker"):
        Controller("none", RateLimitingQueue[str](FakeClock()), reconcile, workers=0)
