"""The manager: which controllers run, what is told of them, and the order of expectations."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from tests.unit.controller_manager.harness import house, make_parts, options
from tiphys.api.core.v1 import config_map_pb2, event_pb2
from tiphys.controllermanager.v1 import controllermanager_pb2
from tiphys_apimachinery.errors import NotFound, ServiceUnavailable
from tiphys_client.controller import RequeueAfter
from tiphys_client.fake import FakeClient
from tiphys_cluster.testing.clocks import WallClock
from tiphys_component.app import StartupError
from tiphys_component.clock import FakeClock
from tiphys_component.metrics import Registry
from tiphys_component.options import parse
from tiphys_controller_manager.expectations import TIMEOUT_S, Expectations
from tiphys_controller_manager.frame import Context, ControllerSpec, Loop, Watch, own_key
from tiphys_controller_manager.manager import ControllerState, Manager, choose, shown
from tiphys_controller_manager.options import Options
from tiphys_controller_manager.recorders import Recorders
from tiphys_controller_manager.registry import controllers
from tiphys_controller_manager.servicer import ControllerManagerServicer

ConfigMap = config_map_pb2.ConfigMap


class Failing:
    """Fails on keys that say so."""

    def __init__(self, context: Context) -> None:
        self.seen: list[str] = []

    def watches(self) -> Iterable[Watch]:
        return (Watch(ConfigMap, own_key),)

    def first_keys(self) -> Iterable[str]:
        return ("first",)

    async def reconcile(self, key: str) -> None:
        self.seen.append(key)
        if "bad" in key:
            raise RuntimeError("it broke")


SPECS = (
    ControllerSpec("a-controller", Failing, aliases=("a",)),
    ControllerSpec("b-controller", Failing),
    ControllerSpec("c-controller", Failing, on_by_default=False),
)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        pytest.param(["*"], ["a-controller", "b-controller"], id="all that are on by default"),
        pytest.param(["*", "c-controller"], ["a-controller", "b-controller", "c-controller"], id="and one more"),
        pytest.param(["*", "-a"], ["b-controller"], id="but one, by its old name"),
        pytest.param(["b-controller"], ["b-controller"], id="only one"),
        pytest.param(["-a-controller"], [], id="none without a star"),
    ],
)
def test_B2_controllers_are_switched_by_name(wanted: list[str], chosen: list[str]) -> None:
    assert [spec.name for spec in choose(SPECS, wanted)] == chosen


def test_an_unknown_name_refuses_the_start() -> None:
    with pytest.raises(StartupError, match="no controller is named x"):
        choose(SPECS, ["*", "-x"])


def test_names_of_the_registry_are_unique() -> None:
    names = [name for spec in controllers(options()) for name in (spec.name, *spec.aliases)]
    assert len(names) == len(set(names))


def test_flags_have_kubernetes_names() -> None:
    read = parse(
        Options,
        [
            "--kubeconfig=/k",
            "--cluster-cidr=10.244.0.0/16,fd00::/48",
            "--controllers=*,-namespace-controller",
            "--leader-elect=false",
            "--node-monitor-grace-period=40s",
            "--root-ca-file=/ca.crt",
        ],
    )
    assert read.cluster_cidr == ("10.244.0.0/16", "fd00::/48")
    assert read.controllers == ("*", "-namespace-controller")
    assert (read.leader_elect, read.node_monitor_grace_period_s) == (False, 40.0)


async def test_a_failure_is_told_and_harms_no_other_key() -> None:
    clock = FakeClock()
    client = FakeClient(clock)
    parts = make_parts(client, clock)
    loop = Loop(SPECS[0], parts)
    loop.trigger("bad")
    loop.trigger("good")
    await loop.controller.process_next()
    await loop.controller.process_next()
    assert (loop.report.reconciles, loop.report.failures) == (2, 1)
    assert (loop.report.last_error, loop.report.last_error_key) == ("it broke", "bad")


async def test_the_face_lists_controllers_and_triggers_one() -> None:
    clock = FakeClock()
    manager = Manager(SPECS, make_parts(FakeClient(clock), clock, controllers=("*", "-b-controller")))
    face = ControllerManagerServicer(manager, identity="me", leader=lambda: "other")
    answer = await face.ListControllers(controllermanager_pb2.ListControllersRequest(), None)
    assert [(item.name, item.enabled, item.running) for item in answer.controllers] == [
        ("a-controller", True, False),
        ("b-controller", False, False),
        ("c-controller", False, False),
    ]
    assert (answer.leader, answer.identity) == ("other", "me")
    with pytest.raises(NotFound):
        await face.Trigger(controllermanager_pb2.TriggerRequest(controller="x", key="k"), None)
    with pytest.raises(ServiceUnavailable):
        await face.Trigger(controllermanager_pb2.TriggerRequest(controller="a-controller", key="k"), None)


def test_B2_the_page_tells_of_each_controller_how_it_fares() -> None:
    page = shown(
        [
            ControllerState("a-controller", True, True, 3, 2, 10, 1, "it broke", "ns/bad"),
            ControllerState("b-controller", True),
            ControllerState("c-controller", False),
        ]
    )
    assert page.splitlines() == [
        "[+]a-controller queue=3 delayed=2 reconciles=10 failures=1 last_error=ns/bad: it broke",
        "[-]b-controller queue=0 delayed=0 reconciles=0 failures=0",
        "[ ]c-controller off",
    ]


class Copy:
    """A view that shows what it is told to."""

    def __init__(self) -> None:
        self.version = 0
        self.objects: dict[str, Any] = {}

    def get(self, key: str) -> Any | None:
        return self.objects.get(key)

    def reached(self) -> int:
        return self.version


def config_map(name: str, version: str, uid: str = "u") -> ConfigMap:
    made = ConfigMap()
    made.metadata.name, made.metadata.namespace = name, "ns"
    made.metadata.resourceVersion, made.metadata.uid = version, uid
    return made


def test_a_write_is_expected_until_the_view_has_its_version() -> None:
    copy = Copy()
    expectations = Expectations(copy, FakeClock())
    assert expectations.are_met("k")
    expectations.wrote("k", config_map("a", "7"))
    expectations.wrote("k", config_map("b", "5"))
    copy.version = 6
    assert not expectations.are_met("k")
    assert expectations.are_met("other")
    copy.version = 7
    assert expectations.are_met("k")


@pytest.mark.parametrize("shown", ["gone", "another uid", "marked"])
def test_a_deletion_is_expected_until_it_shows(shown: str) -> None:
    copy = Copy()
    expectations = Expectations(copy, FakeClock())
    copy.objects["ns/a"] = config_map("a", "1")
    expectations.deleting("k", [config_map("a", "1")])
    assert not expectations.are_met("k")
    if shown == "gone":
        copy.objects.clear()
    elif shown == "another uid":
        copy.objects["ns/a"] = config_map("a", "1", uid="v")
    else:
        copy.objects["ns/a"].metadata.deletionTimestamp.seconds = 1
    assert expectations.are_met("k")


def test_a_view_that_never_catches_up_is_believed_in_the_end() -> None:
    clock = FakeClock()
    expectations = Expectations(Copy(), clock)
    expectations.wrote("k", config_map("a", "7"))
    clock.advance(TIMEOUT_S + 1)
    assert expectations.are_met("k")


async def test_each_component_tells_under_its_own_name() -> None:
    clock = FakeClock()
    client = FakeClient(clock)
    registry = Registry()
    recorders = Recorders(client, clock, registry)
    for component in ("a-controller", "b-controller"):
        recorders.of(component).event(config_map(component, "1"), "Normal", "Done", component)
    assert recorders.of("a-controller") is recorders.of("a-controller")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(recorders.run())
        await clock.settle()
        task.cancel()
    told = (await client.list(event_pb2.Event, "ns")).items
    assert {(item.message, item.source.component) for item in told} == {
        ("a-controller", "a-controller"),
        ("b-controller", "b-controller"),
    }


async def test_one_watch_serves_all_controllers_of_a_kind() -> None:
    async with house("deployment-controller", "replicaset-controller", "endpointslice-controller") as h:
        watched = [call for call in h.client.server.calls if call.method == "Watch" and call.kind == "Pod"]
        assert len(watched) == 1


class Waiting(Failing):
    """Looks at everything once an hour."""

    async def reconcile(self, key: str) -> RequeueAfter:  # type: ignore[override]
        self.seen.append(key)
        return RequeueAfter(3600)


@pytest.mark.parametrize(
    ("wrong_s", "looks"),
    [
        pytest.param(-3600.0, 2, id="back"),
        pytest.param(3600.0, 2, id="forwards"),
        pytest.param(0.5, 1, id="slewed by a time daemon"),
    ],
)
async def test_what_waits_is_looked_at_again_when_the_clock_was_set(wrong_s: float, looks: int) -> None:
    inner = FakeClock()
    clock = WallClock(inner)
    made: list[Waiting] = []

    def make(context: Context) -> Waiting:
        made.append(Waiting(context))
        return made[-1]

    manager = Manager((ControllerSpec("a-controller", make),), make_parts(FakeClient(inner), clock))
    manager.build()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(manager.run())
        await inner.run_for(60)
        assert made[0].seen == ["first"]
        clock.wrong_s = wrong_s
        await inner.run_for(60)
        assert made[0].seen == ["first"] * looks
        running.cancel()
