"""Which change has which waiting pods tried again, and what pods cost that nothing can help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.scheduler.objects import node, pod, pod_message
from tests.unit.scheduler.world import world
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_component.clock import FakeClock
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.framework.interface import Change, Event
from tiphys_scheduler.framework.registry import DEFAULT_PROFILE, EVENTS
from tiphys_scheduler.framework.runtime import Framework
from tiphys_scheduler.pod_info import PodInfo, pod_info
from tiphys_scheduler.scheduling_queue import BackoffTimes, Gates, SchedulingQueue

TAINT = ("team", "red", "NoSchedule")


def with_selector(**labels: str) -> PodInfo:
    message = pod_message()
    message.spec.nodeSelector.update(labels)
    return pod_info(message)


@pytest.mark.parametrize(
    ("info", "refused_by", "event", "after", "is_helped"),
    [
        (pod(cpu="2"), {"NodeResourcesFit"}, Event.NODE_ADDED, {"cpu": "4"}, True),
        (pod(cpu="2"), {"NodeResourcesFit"}, Event.NODE_ADDED, {"cpu": "1"}, False),
        (pod(cpu="2"), {"NodeResourcesFit"}, Event.NODE_LABELS, {"cpu": "4"}, False),
        (pod(), {"TaintToleration"}, Event.NODE_TAINTS, {"taints": [TAINT]}, False),
        (pod(), {"TaintToleration"}, Event.NODE_TAINTS, {}, True),
        (pod(cpu="9"), {"TaintToleration", "NodeResourcesFit"}, Event.NODE_ADDED, {}, False),
        (with_selector(disk="ssd"), {"NodeAffinity"}, Event.NODE_LABELS, {"labels": {"disk": "ssd"}}, True),
        (with_selector(disk="ssd"), {"NodeAffinity"}, Event.NODE_LABELS, {"labels": {"disk": "hdd"}}, False),
        (pod(), {"NodeUnschedulable"}, Event.NODE_TAINTS, {"unschedulable": True}, False),
        (pod(), {"NodeUnschedulable"}, Event.NODE_TAINTS, {}, True),
        (pod(), {"VolumeBinding"}, Event.CLAIM, {}, True),
        (pod(), {"VolumeBinding"}, Event.NODE_TAINTS, {}, False),
        (pod(), {"Unknown"}, Event.NODE_TAINTS, {}, True),
    ],
    ids=lambda value: "-".join(sorted(value)) if isinstance(value, set) else None,
)
def test_C23_a_change_on_a_node_is_judged_by_the_plugins_that_refused(
    info: PodInfo, refused_by: set[str], event: Event, after: Mapping[str, Any], is_helped: bool
) -> None:
    cache = Cache(Columns())
    cache.set_node(node("n", **after))
    framework = Framework(DEFAULT_PROFILE, cache.columns)
    name = "" if event is Event.CLAIM else "n"
    assert framework.may_help(info, frozenset(refused_by), Change(event, name)) is is_helped


async def test_C23_a_pod_waits_through_events_that_can_not_help_it() -> None:
    async with world(node("a", cpu="1")) as found:
        await found.client.create(pod_message("large", cpu="8"))
        await found.until(lambda: found.place_of("large") == "unschedulable")
        for number in range(5):
            await found.client.create(pod_message(f"small{number}"))
        await found.until(lambda: found.node_of("small4") == "a")
        for number in range(5):
            await found.client.delete(Pod, f"small{number}", "default", grace_period_s=0)
        await found.until(lambda: not found.scheduler.cache.node_of("default/small4"))
        found.clock.advance(20)
        assert found.place_of("large") == "unschedulable"


def test_C23_backoff_keeps_to_the_times_of_the_configuration() -> None:
    clock = FakeClock()
    queue = SchedulingQueue(clock, EVENTS, times=BackoffTimes(initial_s=3, longest_s=5))
    queue.add(pod())
    delays = []
    for _ in range(3):
        waiting = queue.pop()
        assert waiting is not None
        queue.refuse(waiting, frozenset())
        delays.append(waiting.ready_at_s - clock.monotonic())
        clock.advance(delays[-1])
        queue.flush()
    assert delays == pytest.approx([3, 5, 5])


def test_C23_one_answer_does_for_all_waiting_pods_of_equal_needs() -> None:
    asked: list[str] = []

    def may_help(info: PodInfo, refused_by: frozenset[str], change: Change) -> bool:
        asked.append(info.name)
        return change.node == "good"

    clock = FakeClock()
    queue = SchedulingQueue(clock, EVENTS, gates=Gates(may_help=may_help))
    for number in range(50):
        queue.add(pod(f"p{number}", cpu="9"))
    while (waiting := queue.pop()) is not None:
        queue.refuse(waiting, frozenset({"NodeResourcesFit"}))
    queue.move_on(frozenset({Event.POD_DELETED}), node="bad")
    assert (len(asked), queue.count("unschedulable")) == (1, 50)
    queue.move_on(frozenset({Event.POD_DELETED}), node="good")
    assert (len(asked), queue.count("unschedulable"), queue.count("backoff")) == (2, 0, 50)


def gated(name: str) -> Pod:
    message = pod_message(name)
    message.spec.schedulingGates.add(name="example.com/wait")
    return message


def test_C23_gated_pods_are_looked_at_by_no_event_and_no_flush() -> None:
    admitted: list[str] = []

    def admit(info: PodInfo) -> tuple[str, str]:
        admitted.append(info.name)
        return ("SchedulingGates", "gated") if info.gates else ("", "")

    clock = FakeClock()
    queue = SchedulingQueue(clock, {**EVENTS, "SchedulingGates": frozenset()}, gates=Gates(admit=admit))
    gates = pod_info(gated("g"))
    for number in range(1000):
        queue.add(PodInfo(**{**{f: getattr(gates, f) for f in PodInfo.__slots__}, "key": f"default/g{number}"}))
    for event in Event:
        queue.move_on(frozenset({event}))
    clock.advance(1000)
    queue.flush()
    assert (len(admitted), queue.count("gated"), queue.pop()) == (1000, 1000, None)


async def test_C24_a_gated_pod_is_placed_once_its_last_gate_is_gone() -> None:
    async with world(node("a")) as found:
        message = gated("p")
        message.spec.schedulingGates.add(name="example.com/other")
        await found.client.create(message)
        await found.until(lambda: found.place_of("p") == "gated")
        held = next(w.held for w in found.scheduler.queue.snapshot())
        assert held == "waiting for scheduling gates: [example.com/wait example.com/other]"
        stored = await found.client.get(Pod, "p", "default")
        del stored.spec.schedulingGates[0]
        await found.client.update(stored)
        await found.until(lambda: any(len(w.pod.gates) == 1 for w in found.scheduler.queue.snapshot()))
        assert found.place_of("p") == "gated"
        stored = await found.client.get(Pod, "p", "default")
        del stored.spec.schedulingGates[:]
        await found.client.update(stored)
        await found.until(lambda: found.node_of("p") == "a")


async def test_C24_a_gated_pod_is_never_said_to_have_failed() -> None:
    async with world(node("a", cpu="1")) as found:
        await found.client.create(gated("p"))
        await found.client.create(pod_message("q"))
        await found.until(lambda: found.node_of("q") == "a")
        assert [name for name, reason, _ in found.events.seen if reason == "FailedScheduling"] == []
