"""Pods of an opted-in class live on room that others requested and do not use; all others are placed as ever."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import pytest

from tests.unit.scheduler.objects import node, pod_message
from tests.unit.scheduler.world import world
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.errors import ServiceUnavailable
from tiphys_apimachinery.meta import format_time
from tiphys_component.clock import FakeClock
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import ALL_ROWS, Columns
from tiphys_scheduler.configuration.load import parse
from tiphys_scheduler.configuration.reader import ConfigurationError
from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.plugins.measured_use import NOT_MEASURED, Measure, MeasuredUse, MeasuredUseArgs
from tiphys_scheduler.pod_info import pod_info
from tiphys_scheduler.use_reader import UseReader

MILLIS, MEMORY = "spare.tiphys.io/cpu-millis", "spare.tiphys.io/memory"
GI = 1 << 30
CONFIG = """
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- pluginConfig:
  - name: MeasuredUse
    args: {priorityClassNames: [spare], marginPercent: 10}
"""


def spare(name: str = "p", millis: int = 1000, memory: str = "", class_name: str = "spare") -> Pod:
    made = pod_message(name)
    made.spec.priorityClassName = class_name
    amounts = {MILLIS: str(millis), MEMORY: memory}
    for resource, text in amounts.items():
        if text:
            made.spec.containers[0].resources.requests[resource].string = text
    return made


class Room:
    """One node of 4 CPUs and 8 Gi, of which 10 % are never given away, full by requests."""

    def __init__(self) -> None:
        self.cache = Cache(Columns())
        self.plugin = MeasuredUse(MeasuredUseArgs(("spare",)))
        self.cache.set_node(node("a", cpu="4", memory="8Gi"))
        self.cache.assume(pod_info(pod_message("full", cpu="4", memory="8Gi")), "a")

    def measure(self, millis: int, memory: int = 0, requested: tuple[int, int] = (4000, 8 * GI)) -> Room:
        self.plugin.note({"a": Measure((millis, memory), requested)}, self.cache.columns)
        return self

    def says(self, pod: Pod) -> tuple[str, ...]:
        info, row = pod_info(pod), self.cache.columns.row_of["a"]
        refused = self.plugin.reasons(info, self.cache.columns, row)
        assert bool(refused) != bool(self.plugin.filter(info, self.cache.columns, ALL_ROWS)[row])
        return refused


def test_C14_a_node_that_is_full_by_requests_takes_what_is_not_used() -> None:
    room = Room().measure(1000, 2 * GI)
    # 3.6 CPUs may be used at all, 1 is.
    assert room.says(spare(millis=2600)) == ()
    assert room.says(spare(millis=2601)) == ("Insufficient spare cpu",)
    assert room.says(spare(memory="5Gi")) == ()
    assert room.says(spare(millis=9000, memory="6Gi")) == ("Insufficient spare cpu", "Insufficient spare memory")


def test_C14_what_pods_on_spare_room_requested_is_taken() -> None:
    room = Room().measure(1000)
    room.cache.assume(pod_info(spare("first", 2000)), "a")
    assert room.says(spare(millis=600)) == ()
    assert room.says(spare(millis=601)) == ("Insufficient spare cpu",)


def test_C14_a_pod_that_came_since_counts_with_its_request_until_it_is_measured() -> None:
    room = Room().measure(1000, requested=(2500, 0))
    # 1.5 of the 4 CPUs requested are of pods whose use is not in the measure.
    assert room.says(spare(millis=1100)) == ()
    assert room.says(spare(millis=1101)) == ("Insufficient spare cpu",)


def test_C14_a_node_that_was_not_measured_takes_none() -> None:
    room = Room()
    assert room.says(spare()) == (NOT_MEASURED,)
    room.measure(0)
    room.plugin.note({}, room.cache.columns)
    assert room.says(spare()) == (NOT_MEASURED,)


@pytest.mark.parametrize(
    ("pod", "text"),
    [
        (spare(), ""),
        (pod_message("ordinary", cpu="1"), ""),
        (spare(class_name="high"), 'pods of priority class "high" may not use spare room'),
        (spare(class_name=""), 'pods of priority class "" may not use spare room'),
    ],
    ids=["of the class", "asks for none", "of another class", "of no class"],
)
def test_C14_only_the_class_that_opted_in_may_use_it(pod: Pod, text: str) -> None:
    assert Room().plugin.pre_filter(pod_info(pod)) == text


@pytest.mark.parametrize("resource", ["cpu", "memory"])
def test_C14_a_pod_on_spare_room_is_best_effort(resource: str) -> None:
    """With a request of its own the kernel would weigh it against those whose room it is."""
    pod = spare()
    pod.spec.containers[0].resources.requests[resource].string = "1"
    assert "no cpu or memory" in Room().plugin.pre_filter(pod_info(pod))


def test_C14_the_node_with_most_left_after_it_is_the_best() -> None:
    cache, plugin = Cache(Columns()), MeasuredUse(MeasuredUseArgs(("spare",), margin_percent=0))
    for name in ("idle", "busy"):
        cache.set_node(node(name, cpu="4", memory="8Gi"))
    plugin.note({"idle": Measure((1000, 0), (0, 0)), "busy": Measure((2000, 0), (0, 0))}, cache.columns)
    scores = plugin.score(pod_info(spare(millis=1000, memory="4Gi")), cache.columns, ALL_ROWS)
    # (50 + 50) / 2 and (25 + 50) / 2
    assert [int(scores[cache.columns.row_of[name]]) for name in ("idle", "busy")] == [50, 37]
    ordinary = plugin.score(pod_info(pod_message("p", cpu="1")), cache.columns, ALL_ROWS)
    assert not ordinary.any()


@pytest.mark.parametrize("seed", range(20))
def test_C1_C14_room_is_judged_as_node_by_node(seed: int) -> None:
    """Against a reference that adds up objects, with a class of pods that is kept while pods come and go."""
    choose = Random(seed)
    cache, plugin = Cache(Columns()), MeasuredUse(MeasuredUseArgs(("spare",), margin_percent=20))
    names = [f"n{i}" for i in range(6)]
    for name in names:
        cache.set_node(node(name, cpu=choose.choice(("2", "4"))))
    measures: dict[str, Measure] = {}
    for step in range(30):
        if choose.random() < 0.3:
            some = choose.sample(names, 4)
            measures = {n: Measure((choose.randint(0, 2500), 0), (choose.randint(0, 2000), 0)) for n in some}
            plugin.note(measures, cache.columns)
        at = choose.choice(names)
        made = spare(f"s{step}", choose.randint(1, 900)) if choose.random() < 0.5 else pod_message(f"o{step}", cpu="1")
        cache.assume(pod_info(made), at)
        wanted = choose.randint(1, 2000)
        mask = plugin.filter(pod_info(spare(millis=wanted)), cache.columns, ALL_ROWS)
        for name in names:
            row = cache.columns.row_of[name]
            pods = [dict(pod.needs.requests) for pod in cache.pods_on(name)]
            told = measures.get(name)
            left = -1
            if told is not None:
                since = max(sum(p.get("cpu", 0) for p in pods) - told.requested[0], 0)
                given = int(cache.columns.capacity[cache.columns.resource("cpu"), row]) * 80 // 100
                left = given - told.used[0] - since - sum(p.get(MILLIS, 0) for p in pods)
            assert bool(mask[row]) == (told is not None and left >= wanted)


class Answers:
    """A metrics API; None is one that is away."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.nodes: dict[str, tuple[str, str]] | None = {}
        self.pods: dict[str, tuple[str, str]] = {}

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        if self.nodes is None:
            raise ServiceUnavailable("away")
        at = format_time(self.clock.now())
        if path.endswith("/nodes"):
            return {
                "items": [{"metadata": {"name": n}, "timestamp": at, "usage": _use(u)} for n, u in self.nodes.items()]
            }
        return {
            "items": [
                {"metadata": {"namespace": "default", "name": n}, "containers": [{"usage": _use(u)}]}
                for n, u in self.pods.items()
            ]
        }

    async def close(self) -> None:
        pass


def _use(amounts: tuple[str, str]) -> dict[str, str]:
    return dict(zip(("cpu", "memory"), amounts, strict=True))


async def test_C14_use_is_read_without_that_of_pods_on_spare_room_and_forgotten_when_old() -> None:
    clock = FakeClock()
    answers, heard = Answers(clock), list[Mapping[str, Measure]]()
    there = [pod_info(pod_message("web", cpu="2", memory="1Gi")), pod_info(pod_message("new", cpu="1"))]
    there.append(pod_info(spare("batch", 900)))
    reader = UseReader(answers, MeasuredUseArgs(("spare",)), clock, pods_on=lambda _: there, told=heard.append)
    answers.nodes = {"a": ("1500m", "3Gi")}
    answers.pods = {"web": ("500m", "1Gi"), "batch": ("800m", "512Mi")}
    await reader.read()
    known = {"a": Measure((700, 3 * GI - GI // 2), (2000, GI))}
    assert heard[-1] == known
    answers.nodes = None
    clock.advance(60)
    await reader.read()
    assert heard[-1] == known
    clock.advance(60)
    await reader.read()
    assert heard[-1] == {}


@pytest.mark.parametrize("nodes", [{"a": ("nonsense", "1")}, {"a": ("1", "")}], ids=["no quantity", "empty"])
async def test_C14_an_answer_that_can_not_be_read_is_no_measure(nodes: dict[str, tuple[str, str]]) -> None:
    clock = FakeClock()
    answers, heard = Answers(clock), list[Mapping[str, Measure]]()
    answers.nodes = nodes
    await UseReader(answers, MeasuredUseArgs(("spare",)), clock, pods_on=lambda _: (), told=heard.append).read()
    assert heard == [{}]


async def test_C14_spare_room_is_given_as_it_is_measured_and_ordinary_pods_have_their_requests() -> None:
    async with world(node("a", cpu="4"), node("b", cpu="4"), config=parse(CONFIG.encode())) as found:
        for name, at in (("one", "a"), ("two", "b")):
            await found.client.create(pod_message(name, cpu="3", nodeName=at))
        await found.client.create(spare("batch", 2000))
        await found.until(lambda: found.place_of("batch") == "unschedulable")
        assert ("batch", "FailedScheduling", f"0/2 nodes are available: 2 {NOT_MEASURED}.") == tuple(
            part.partition(" preemption:")[0] for part in found.events.seen[-1]
        )
        found.scheduler.note_use({"a": Measure((3000, 0), (3000, 0)), "b": Measure((500, 0), (3000, 0))})
        found.clock.advance(11)
        await found.until(lambda: found.node_of("batch") == "b")
        # An ordinary pod has what nobody requested, whatever lives on spare room there.
        for number in range(2):
            await found.client.create(pod_message(f"p{number}", cpu="1"))
        await found.until(lambda: {found.node_of(f"p{number}") for number in range(2)} == {"a", "b"})


async def test_C14_without_the_plugin_nobody_has_spare_room() -> None:
    async with world(node("a", cpu="4")) as found:
        await found.client.create(spare())
        await found.until(lambda: found.place_of("p") == "unschedulable")
        assert f"1 Insufficient {MILLIS}" in found.events.seen[-1][2]


def test_C14_a_configuration_names_the_classes() -> None:
    made = parse(CONFIG.encode())
    assert made.measured_use == MeasuredUseArgs(("spare",), 10)
    with pytest.raises(ConfigurationError, match="priorityClassNames"):
        parse(CONFIG.replace("priorityClassNames: [spare], ", "").encode())
    assert Event.USE in MeasuredUse.events
