"""The points of the framework: their order, and what a plugin at each can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from tests.unit.scheduler.objects import node, pod_message
from tests.unit.scheduler.world import World, world
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_scheduler.columns import Columns, Mask, Rows
from tiphys_scheduler.framework.interface import Event, Normalize, Permission, PostFilterResult, Scores
from tiphys_scheduler.framework.profile import Profile
from tiphys_scheduler.framework.status import FitError
from tiphys_scheduler.pod_info import PodInfo

# A pod's journey, as kube-scheduler's documentation draws it.
ORDER = [
    "PreEnqueue",
    "QueueSort",
    "PreFilter",
    "Filter",
    "PreScore",
    "Score",
    "Normalize",
    "Reserve",
    "Permit",
    "PreBind",
    "Bind",
    "PostBind",
]


@dataclass
class Recorder:
    """A plugin at every point; `calls` are the points in order, each noted once in a row."""

    name: str = "Recorder"
    events: frozenset[Event] = frozenset({Event.NODE_LABELS})
    normalize: Normalize = Normalize.NONE
    calls: list[str] = field(default_factory=list)
    held: str = ""
    unfit: bool = False
    reservation: str = ""
    permission: Permission = field(default_factory=Permission)
    pre_bound: Callable[[], str] = lambda: ""
    binds_itself: bool = False

    def note(self, point: str) -> None:
        if self.calls[-1:] != [point]:
            self.calls.append(point)

    def pre_enqueue(self, pod: PodInfo) -> str:
        self.note("PreEnqueue")
        return self.held

    def sort_key(self, pod: PodInfo, order: int) -> tuple[float, ...]:
        self.note("QueueSort")
        return (-pod.priority, order)

    def pre_filter(self, pod: PodInfo) -> str:
        self.note("PreFilter")
        return ""

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        return True

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        self.note("Filter")
        return np.full(nodes.present[rows].shape, not self.unfit)

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        return ("recorder says no",)

    def post_filter(self, pod: PodInfo, error: FitError) -> PostFilterResult:
        self.note("PostFilter")
        return PostFilterResult(message="recorder made no room")

    def pre_score(self, pod: PodInfo, nodes: Columns, rows: Rows) -> None:
        self.note("PreScore")

    def score(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Scores:
        self.note("Score")
        return np.zeros(nodes.present[rows].shape, np.int64)

    def normalize_scores(self, pod: PodInfo, scores: Scores) -> Scores:
        self.note("Normalize")
        return scores

    def reserve(self, pod: PodInfo, node: str) -> str:
        self.note("Reserve")
        return self.reservation

    def unreserve(self, pod: PodInfo, node: str) -> None:
        self.note("Unreserve")

    def permit(self, pod: PodInfo, node: str) -> Permission:
        self.note("Permit")
        return self.permission

    async def pre_bind(self, pod: PodInfo, node: str) -> str:
        self.note("PreBind")
        return self.pre_bound()

    def is_mine(self, pod: PodInfo) -> bool:
        self.note("Bind")
        return self.binds_itself

    async def bind(self, pod: PodInfo, node: str) -> str:
        return "no binding today"

    def post_bind(self, pod: PodInfo, node: str) -> None:
        self.note("PostBind")

    def everywhere(self, profile: Profile) -> Profile:
        """The profile with this plugin at each point."""
        return replace(
            profile,
            pre_enqueues=(*profile.pre_enqueues, self),
            queue_sort=self,
            pre_filters=(*profile.pre_filters, self),
            filters=(*profile.filters, self),
            post_filters=(self,),
            pre_scores=(self,),
            scores=(*profile.scores, (self, 1)),
            reserves=(self,),
            permits=(self,),
            pre_binds=(self,),
            binds=(self,),
            post_binds=(self,),
        )


def in_order(calls: list[str]) -> list[str]:
    """Each point once, where it first comes."""
    return list(dict.fromkeys(calls))


def failures(found: World) -> list[str]:
    return [message for _, reason, message in found.events.seen if reason == "FailedScheduling"]


async def test_C20_a_plugin_at_each_point_is_called_in_the_documented_order() -> None:
    recorder = Recorder()
    async with world(node("a"), extend=recorder.everywhere) as found:
        await found.client.create(pod_message("p"))
        await found.until(lambda: "PostBind" in recorder.calls)
        assert found.node_of("p") == "a"
    assert in_order(recorder.calls) == ORDER


async def test_C20_a_pod_that_fits_nowhere_comes_to_postfilter_and_to_nothing_after_it() -> None:
    recorder = Recorder(unfit=True)
    async with world(node("a"), extend=recorder.everywhere) as found:
        await found.client.create(pod_message("p"))
        await found.until(lambda: bool(failures(found)))
        assert failures(found) == ["0/1 nodes are available: 1 recorder says no. recorder made no room"]
    assert in_order(recorder.calls) == ["PreEnqueue", "QueueSort", "PreFilter", "Filter", "PostFilter"]


async def test_C20_preenqueue_holds_a_pod_until_an_event_of_the_plugin() -> None:
    recorder = Recorder(held="not yet")
    async with world(node("a"), extend=recorder.everywhere) as found:
        await found.client.create(pod_message("p"))
        await found.until(lambda: found.place_of("p") == "gated")
        recorder.held = ""
        found.scheduler.queue.move_on(frozenset({Event.POD_DELETED}))
        assert found.place_of("p") == "gated"
        found.scheduler.queue.move_on(frozenset({Event.NODE_LABELS}))
        await found.until(lambda: found.node_of("p") == "a")


def _failing_pre_bind() -> str:
    raise RuntimeError("disk on fire")


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        pytest.param({"reservation": "sold out"}, 'running Reserve plugin "Recorder": sold out', id="Reserve"),
        pytest.param({"permission": Permission(refusal="not today")}, "not today", id="Permit"),
        pytest.param({"pre_bound": lambda: "no disk"}, 'running PreBind plugin "Recorder": no disk', id="PreBind"),
        pytest.param(
            {"pre_bound": _failing_pre_bind}, 'running PreBind plugin "Recorder": disk on fire', id="PreBind-raises"
        ),
        pytest.param({"binds_itself": True}, 'running Bind plugin "Recorder": no binding today', id="Bind"),
    ],
)
async def test_C20_a_failure_after_the_choice_gives_everything_back(faulty: dict[str, Any], message: str) -> None:
    recorder = Recorder(**faulty)
    async with world(node("a", cpu="1"), extend=recorder.everywhere) as found:
        await found.client.create(pod_message("p", cpu="1"))
        await found.until(lambda: failures(found) == [message])
        await found.until(lambda: found.place_of("p") == "backoff")
        assert recorder.calls[-1] == "Unreserve"
        for name, value in Recorder().__dict__.items():
            if name in faulty:
                setattr(recorder, name, value)
        found.clock.advance(2)
        await found.until(lambda: found.node_of("p") == "a")


async def test_C20_permit_has_a_pod_wait_until_it_is_allowed_while_others_go_on() -> None:
    recorder = Recorder(permission=Permission(wait_s=60))
    async with world(node("a"), extend=recorder.everywhere) as found:
        await found.client.create(pod_message("waits"))
        await found.until(lambda: bool(found.scheduler.binding.waiting_for_permission()))
        recorder.permission = Permission()
        await found.client.create(pod_message("goes"))
        await found.until(lambda: found.node_of("goes") == "a")
        assert found.node_of("waits") == ""
        found.scheduler.binding.allow("default/waits", "Recorder")
        await found.until(lambda: found.node_of("waits") == "a")


async def test_C20_permit_gives_up_in_time_and_the_room_is_free_again() -> None:
    recorder = Recorder(permission=Permission(wait_s=5))
    async with world(node("a", cpu="1"), extend=recorder.everywhere) as found:
        await found.client.create(pod_message("p", cpu="1"))
        await found.until(lambda: bool(found.scheduler.binding.waiting_for_permission()))
        recorder.permission = Permission()
        found.clock.advance(6)
        await found.until(lambda: failures(found) == ["rejected due to timeout after waiting 5s at plugin Recorder"])
        found.clock.advance(2)
        await found.until(lambda: found.node_of("p") == "a")


async def test_C20_a_pod_deleted_while_it_waits_for_permission_leaves_its_room() -> None:
    recorder = Recorder(permission=Permission(wait_s=60))
    async with world(node("a", cpu="1"), extend=recorder.everywhere) as found:
        await found.client.create(pod_message("gone", cpu="1"))
        await found.until(lambda: bool(found.scheduler.binding.waiting_for_permission()))
        recorder.permission = Permission()
        await found.client.create(pod_message("next", cpu="1"))
        await found.until(lambda: found.place_of("next") == "unschedulable")
        await found.client.delete(Pod, "gone", "default", grace_period_s=0)
        await found.until(lambda: found.place_of("next") == "backoff")
        found.clock.advance(2)
        await found.until(lambda: found.node_of("next") == "a")
