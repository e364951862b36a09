"""The work queue."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiphys_client.rate_limiter import Bucket, ItemBackoff, Slowest
from tiphys_client.workqueue import QueueShutDown, RateLimitingQueue
from tiphys_client.workqueue_metrics import WorkMetrics
from tiphys_component.clock import FakeClock
from tiphys_component.metrics import Registry


async def test_item_added_twice_while_it_waits_is_worked_on_once() -> None:
    queue: RateLimitingQueue[str] = RateLimitingQueue(FakeClock())
    queue.add("a")
    queue.add("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0
    assert queue.is_idle


async def test_item_added_while_it_is_worked_on_comes_again_afterwards() -> None:
    queue: RateLimitingQueue[str] = RateLimitingQueue(FakeClock())
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert len(queue) == 1
    assert await queue.get() == "a"


async def test_items_come_in_the_order_they_became_ready() -> None:
    queue: RateLimitingQueue[str] = RateLimitingQueue(FakeClock())
    for item in "cab":
        queue.add(item)
    assert [await queue.get() for _ in range(3)] == ["c", "a", "b"]


async def test_waiting_worker_gets_the_next_item() -> None:
    queue: RateLimitingQueue[str] = RateLimitingQueue(FakeClock())
    worker = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    assert await worker == "a"


async def test_worker_cancelled_as_it_wakes_leaves_the_item_to_another() -> None:
    queue: RateLimitingQueue[str] = RateLimitingQueue(FakeClock())
    first, second = asyncio.ensure_future(queue.get()), asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await asyncio.wait_for(second, 1) == "a"


async def test_delayed_item_comes_at_the_earliest_time_asked() -> None:
    clock = FakeClock()
    queue: RateLimitingQueue[str] = RateLimitingQueue(clock)
    queue.add_after("a", 10)
    queue.add_after("a", 5)
    queue.add_after("a", 20)
    clock.advance(4.9)
    assert (len(queue), queue.delayed) == (0, 1)
    clock.advance(0.1)
    assert (len(queue), queue.delayed) == (1, 0)
    clock.advance(60)
    assert len(queue) == 1


async def test_hurried_items_come_now_and_only_once() -> None:
    clock = FakeClock()
    queue: RateLimitingQueue[str] = RateLimitingQueue(clock)
    queue.add_after("late", 3600)
    queue.add_after("later", 7200)
    queue.hurry()
    assert (await queue.get(), await queue.get(), queue.delayed) == ("late", "later", 0)
    queue.done("late")
    queue.done("later")
    clock.advance(7200)
    assert queue.is_idle


async def test_delay_of_nothing_is_no_delay() -> None:
    queue: RateLimitingQueue[str] = RateLimitingQueue(FakeClock())
    queue.add_after("a", 0)
    assert len(queue) == 1


async def test_failures_double_the_delay_until_forgotten() -> None:
    clock = FakeClock()
    queue: RateLimitingQueue[str] = RateLimitingQueue(clock)
    delays = []
    for _ in range(3):
        start = clock.monotonic()
        queue.add_rate_limited("a")
        while not len(queue):
            clock.advance(0.001)
        delays.append(round(clock.monotonic() - start, 3))
        await queue.get()
        queue.done("a")
    assert delays == [0.005, 0.01, 0.02]
    assert queue.failures("a") == 3
    queue.forget("a")
    assert queue.failures("a") == 0


async def test_shut_down_gives_what_is_queued_and_then_ends() -> None:
    clock = FakeClock()
    queue: RateLimitingQueue[str] = RateLimitingQueue(clock)
    queue.add("a")
    queue.add_after("b", 1)
    idle = RateLimitingQueue[str](clock)
    waiting = asyncio.ensure_future(idle.get())
    await asyncio.sleep(0)
    queue.shut_down()
    idle.shut_down()
    queue.add("c")
    clock.advance(2)
    assert await queue.get() == "a"
    with pytest.raises(QueueShutDown):
        await queue.get()
    with pytest.raises(QueueShutDown):
        await waiting


async def test_drain_waits_for_the_work_in_progress() -> None:
    queue: RateLimitingQueue[str] = RateLimitingQueue(FakeClock())
    queue.add("a")
    await queue.get()
    queue.add("a")
    drained = asyncio.ensure_future(queue.drain())
    await asyncio.sleep(0)
    queue.done("a")
    await asyncio.sleep(0)
    assert not drained.done()
    await queue.get()
    queue.done("a")
    await asyncio.wait_for(drained, 1)


async def test_done_without_work_is_an_error() -> None:
    queue: RateLimitingQueue[str] = RateLimitingQueue(FakeClock())
    with pytest.raises(ValueError, match="not worked on"):
        queue.done("a")


def test_bucket_holds_all_items_together_to_its_rate() -> None:
    clock = FakeClock()
    bucket = Bucket(clock, per_second=10, burst=2)
    assert [bucket.when(item) for item in "abcd"] == pytest.approx([0, 0, 0.1, 0.2])
    clock.advance(1)
    assert bucket.when("e") == 0


def test_slowest_limiter_decides() -> None:
    clock = FakeClock()
    limiter = Slowest(ItemBackoff(base_s=1), Bucket(clock, per_second=1, burst=1))
    assert [limiter.when("a") for _ in range(3)] == [1, 2, 4]
    assert limiter.failures("a") == 3
    limiter.forget("a")
    assert limiter.failures("a") == 0


async def test_J5_metrics_follow_an_item() -> None:
    registry, clock = Registry(), FakeClock()
    queue: RateLimitingQueue[str] = RateLimitingQueue(clock, metrics=WorkMetrics(registry, clock).for_queue("pods"))
    queue.add("a")
    queue.add("b")
    clock.advance(2)
    await queue.get()
    clock.advance(3)
    assert registry.value("workqueue_unfinished_work_seconds", name="pods") == 3
    assert registry.value("workqueue_longest_running_processor_seconds", name="pods") == 3
    queue.done("a")
    assert registry.value("workqueue_unfinished_work_seconds", name="pods") == 0
    assert registry.value("workqueue_depth", name="pods") == 1
    assert registry.value("workqueue_adds_total", name="pods") == 2
    assert registry.value("workqueue_queue_duration_seconds_sum", name="pods") == 2
    assert registry.value("workqueue_work_duration_seconds_sum", name="pods") == 3


class Model:
    """What the queue must do, in the plainest words: the needs of each item, and who works on it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.queue: RateLimitingQueue[int] = RateLimitingQueue(self.clock)
        self.needs: set[int] = set()
        self.busy: set[int] = set()
        self.due: dict[int, float] = {}

    def add(self, item: int) -> None:
        self.queue.add(item)
        self.needs.add(item)

    def add_after(self, item: int, delay: int) -> None:
        self.queue.add_after(item, delay)
        if delay == 0:
            self.needs.add(item)
        else:
            deadline = self.clock.monotonic() + delay
            self.due[item] = min(deadline, self.due.get(item, deadline))

    def advance(self, seconds: int) -> None:
        self.clock.advance(seconds)
        for item in [item for item, at in self.due.items() if at <= self.clock.monotonic()]:
            del self.due[item]
            self.needs.add(item)

    async def get(self) -> None:
        ready = self.needs - self.busy
        assert len(self.queue) == len(ready)
        if ready:
            item = await self.queue.get()
            assert item in ready
            self.needs.discard(item)
            self.busy.add(item)

    def done(self, index: int) -> None:
        if self.busy:
            item = sorted(self.busy)[index % len(self.busy)]
            self.busy.discard(item)
            self.queue.done(item)

    def check(self) -> None:
        assert len(self.queue) == len(self.needs - self.busy)
        assert self.queue.delayed == len(self.due)
        assert self.queue.is_idle == (not self.needs and not self.busy)


ITEMS = st.integers(0, 3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), ITEMS),
        st.tuples(st.just("add_after"), ITEMS, st.integers(0, 3)),
        st.tuples(st.just("advance"), st.integers(1, 3)),
        st.tuples(st.just("get")),
        st.tuples(st.just("done"), ITEMS),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_no_item_is_lost_doubled_or_worked_on_by_two(steps: list[tuple[Any, ...]]) -> None:
    async def play() -> None:
        model = Model()
        for name, *args in steps:
            result = getattr(model, name)(*args)
            if result is not None:
                await result
            model.check()
        # Whatever happened, the rest can be worked off.
        model.advance(10)
        while model.needs or model.busy:
            await model.get()
            model.done(0)
        model.check()

    asyncio.run(play())
