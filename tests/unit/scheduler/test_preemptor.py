"""Victims end many to a call: marked before they are deleted, each answered by itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tests.support.promptness import PROMPTLY_S
from tests.unit.scheduler.objects import pod_message
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.errors import Forbidden, ServiceUnavailable
from tiphys_client.fake import FakeClient
from tiphys_component.clock import FakeClock
from tiphys_scheduler.pod_info import PodInfo, pod_info
from tiphys_scheduler.preemptor import Preemption, Preemptor
from tiphys_scheduler.refusals import Refusals


@dataclass
class Bench:
    client: FakeClient
    clock: FakeClock = field(default_factory=FakeClock)
    told: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def seed(self, *names: str, namespace: str = "default") -> list[PodInfo]:
        made = []
        for name in names:
            message = pod_message(name, nodeName="n")
            message.metadata.namespace = namespace
            made += self.client.seed(message)
        return [pod_info(message) for message in made]

    def left(self) -> set[str]:
        """Pods that nobody has asked to end."""
        found = (self.client.find_stored(Pod, name, "default") for name in ("a", "b", "c", "d"))
        return {
            pod.metadata.name for pod in found if pod is not None and not pod.metadata.HasField("deletionTimestamp")
        }

    async def until(self, is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PROMPTLY_S):
            while not is_true():  # noqa: ASYNC110 - what is waited for is in another task's hands
                await asyncio.sleep(0)


@asynccontextmanager
async def preempting(bench: Bench, *wanted: tuple[str, Sequence[PodInfo]]) -> AsyncIterator[None]:
    """A preemptor at work; wanted names the pods and their victims."""

    def failed(preemption: Preemption) -> None:
        bench.failed.append(preemption.pod.name)

    preemptor = Preemptor(
        bench.client, bench.clock, told=lambda victim, _: bench.told.append(victim.name), failed=failed
    )
    for name, victims in wanted:
        preemptor.preempt(pod_info(pod_message(name, priority=9)), "n", victims)
    task = asyncio.create_task(preemptor.run())
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_C19_victims_of_many_preemptions_end_in_two_calls_a_namespace() -> None:
    bench = Bench(FakeClient())
    a, b, c, d = bench.seed("a", "b", "c", "d")
    (other,) = bench.seed("e", namespace="other")
    async with preempting(bench, ("one", [a, b, other]), ("two", [c, d])):
        await bench.until(lambda: len(bench.told) == 5)
    calls = [(call.method, call.namespace) for call in bench.client.writes()]
    assert Counter(calls) == {
        ("BatchPatch", "default"): 1,
        ("BatchPatch", "other"): 1,
        ("BatchDelete", "default"): 1,
        ("BatchDelete", "other"): 1,
    }
    assert [method for method, _ in calls] == ["BatchPatch"] * 2 + ["BatchDelete"] * 2
    assert bench.left() == set()
    assert bench.failed == []


async def test_C19_a_call_takes_no_more_victims_than_fit() -> None:
    bench = Bench(FakeClient())
    victims = bench.seed(*(f"v{number}" for number in range(600)))
    async with preempting(bench, ("many", victims[:300]), *((f"p{n}", victims[n : n + 3]) for n in range(300, 600, 3))):
        await bench.until(lambda: len(bench.told) == 600)
    assert Counter(call.method for call in bench.client.writes()) == {"BatchPatch": 4, "BatchDelete": 4}


async def test_C19_a_victim_that_is_gone_or_replaced_is_no_failure() -> None:
    bench = Bench(FakeClient())
    gone, replaced, there = bench.seed("a", "b", "c")
    bench.client.server.store.remove(bench.client.stored(Pod, "a", "default"))
    bench.client.server.store.remove(bench.client.stored(Pod, "b", "default"))
    another = pod_message("b", nodeName="n")
    another.metadata.uid = "another"
    bench.client.seed(another)
    async with preempting(bench, ("one", [gone, replaced, there])):
        await bench.until(lambda: bench.told == ["c"])
    assert bench.left() == {"b"}
    assert bench.failed == []


async def test_C19_what_ends_already_is_not_asked_again() -> None:
    bench = Bench(FakeClient())
    bench.seed("a", "b")
    await bench.client.delete(Pod, "a", "default", grace_period_s=30)
    ending, there = (pod_info(bench.client.find_stored(Pod, name, "default") or Pod()) for name in "ab")
    async with preempting(bench, ("one", [ending]), ("two", [there])):
        await bench.until(lambda: bench.told == ["b"])
    assert bench.failed == []


@pytest.mark.parametrize("error", [ServiceUnavailable("away"), Forbidden("no")], ids=["lost", "refused"])
@pytest.mark.parametrize("method", ["BatchPatch", "BatchDelete"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "answer"])
async def test_C19_a_call_that_fails_fails_each_preemption_in_it_once(
    method: str, error: Exception, after: bool
) -> None:
    bench = Bench(FakeClient())
    a, b, c = bench.seed("a", "b", "c")
    bench.client.server.fail(method, Pod, error, after=after)
    async with preempting(bench, ("one", [a, b]), ("two", [c])):
        await bench.until(lambda: len(bench.failed) == 2)
        assert bench.failed == ["one", "two"]
        assert bench.told == []
        if method == "BatchPatch":
            # Nobody is ended without being marked.
            assert bench.left() == {"a", "b", "c"}


async def test_C19_after_a_lost_answer_the_next_try_finds_what_is_left() -> None:
    bench = Bench(FakeClient())
    a, b = bench.seed("a", "b")
    bench.client.server.fail("BatchDelete", Pod, ServiceUnavailable("lost"), after=True)
    async with preempting(bench, ("one", [a, b])):
        await bench.until(lambda: bench.failed == ["one"])
    async with preempting(bench, ("one", [a, b])):
        await bench.until(lambda: bench.told == ["a", "b"])
    assert bench.failed == ["one"]


async def test_refusals_are_written_many_to_a_call_and_the_newest_wins() -> None:
    bench = Bench(FakeClient())
    pods = bench.seed("a", "b", "c")
    refusals = Refusals(bench.client, bench.clock)
    refusals.add(pods[0], "old")
    for pod in pods:
        refusals.add(pod, f"no room for {pod.name}", "n1")
    task = asyncio.create_task(refusals.run())

    def written() -> bool:
        found = [bench.client.find_stored(Pod, name, "default") for name in "abc"]
        return all(pod is not None and pod.status.nominatedNodeName == "n1" for pod in found)

    await bench.until(written)
    task.cancel()
    assert [call.method for call in bench.client.writes()] == ["BatchPatch"]
    stored = bench.client.find_stored(Pod, "a", "default") or Pod()
    assert [(c.type, c.status, c.message) for c in stored.status.conditions] == [
        ("PodScheduled", "False", "no room for a")
    ]
