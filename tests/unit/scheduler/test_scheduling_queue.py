"""Who waits where, and what frees whom."""

from __future__ import annotations

import pytest

from tests.unit.scheduler.objects import pod
from tiphys_component.clock import FakeClock
from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.framework.registry import EVENTS
from tiphys_scheduler.scheduling_queue import SchedulingQueue, Waiting

FIT = frozenset({"NodeResourcesFit"})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(clock: FakeClock) -> SchedulingQueue:
    return SchedulingQueue(clock, EVENTS)


def popped(queue: SchedulingQueue) -> Waiting:
    found = queue.pop()
    assert found is not None
    return found


def test_C23_higher_priority_goes_first_then_the_older(queue: SchedulingQueue) -> None:
    queue.add(pod("low", priority=0))
    queue.add(pod("old", priority=10))
    queue.add(pod("young", priority=10))
    assert [popped(queue).pod.name for _ in range(3)] == ["old", "young", "low"]
    assert queue.pop() is None


def test_a_refused_pod_waits_for_an_event_that_helps(queue: SchedulingQueue, clock: FakeClock) -> None:
    queue.add(pod())
    queue.refuse(popped(queue), FIT)
    queue.move_on(frozenset({Event.NODE_LABELS}))
    clock.advance(20)
    queue.flush()
    assert queue.pop() is None
    queue.move_on(frozenset({Event.POD_DELETED}))
    assert popped(queue).pod.name == "p1"


def test_an_event_does_not_shorten_the_backoff(queue: SchedulingQueue, clock: FakeClock) -> None:
    queue.add(pod())
    queue.refuse(popped(queue), FIT)
    queue.move_on(frozenset({Event.NODE_ADDED}))
    assert queue.pop() is None
    clock.advance(1.01)
    queue.flush()
    assert popped(queue).attempts == 2


def test_C23_backoff_grows_to_ten_seconds(queue: SchedulingQueue, clock: FakeClock) -> None:
    queue.add(pod())
    delays = []
    for _ in range(6):
        waiting = popped(queue)
        queue.refuse(waiting, frozenset())
        delays.append(waiting.ready_at_s - clock.monotonic())
        clock.advance(delays[-1])
        queue.flush()
    assert delays == pytest.approx([1, 2, 4, 8, 10, 10])


def test_C23_a_pod_that_nothing_helped_is_tried_after_five_minutes(queue: SchedulingQueue, clock: FakeClock) -> None:
    queue.add(pod())
    queue.refuse(popped(queue), FIT)
    clock.advance(301)
    queue.flush()
    assert popped(queue).pod.name == "p1"


def test_a_removed_pod_is_never_popped(queue: SchedulingQueue) -> None:
    queue.add(pod())
    queue.remove("default/p1")
    assert queue.pop() is None


def test_a_changed_pod_is_tried_at_once(queue: SchedulingQueue) -> None:
    queue.add(pod(cpu="9"))
    queue.refuse(popped(queue), FIT)
    queue.add(pod(cpu="1"))
    assert popped(queue).pod.needs == pod(cpu="1").needs


def test_the_same_pod_again_changes_nothing(queue: SchedulingQueue) -> None:
    queue.add(pod())
    queue.refuse(popped(queue), FIT)
    queue.add(pod())
    assert queue.pop() is None


def test_a_failed_binding_is_tried_again_after_backoff(queue: SchedulingQueue, clock: FakeClock) -> None:
    queue.add(pod())
    waiting = popped(queue)
    queue.remove(waiting.pod.key)
    queue.restore(waiting)
    assert queue.pop() is None
    clock.advance(1.01)
    queue.flush()
    assert popped(queue) is waiting
