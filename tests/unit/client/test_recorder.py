"""The event recorder and its correlator."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.unit.client.builders import pod
from tiphys.api.core.v1.event_pb2 import Event
from tiphys.api.core.v1.namespace_pb2 import Namespace
from tiphys_apimachinery.errors import APIError, Forbidden, ServiceUnavailable
from tiphys_client.event_correlator import COMBINED_PREFIX, Decision, EventCorrelator, Occurrence
from tiphys_client.fake import FakeClient
from tiphys_client.recorder import EventRecorder
from tiphys_client.resource_facts import Stored
from tiphys_component.clock import FakeClock
from tiphys_component.metrics import Registry


@asynccontextmanager
async def recording(
    client: FakeClient, clock: FakeClock, registry: Registry | None = None, capacity: int = 1000
) -> AsyncIterator[EventRecorder]:
    recorder = EventRecorder(client, "kubelet", clock=clock, host="n1", registry=registry, capacity=capacity)
    task = asyncio.ensure_future(recorder.run())
    try:
        yield recorder
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def client(clock: FakeClock) -> FakeClient:
    return FakeClient(clock)


async def events(client: FakeClient) -> list[Event]:
    return (await client.list(Event)).items


async def test_event_says_what_happened_to_whom(client: FakeClient, clock: FakeClock) -> None:
    [stored] = client.seed(pod("web", app="x"))
    async with recording(client, clock) as recorder:
        recorder.event(stored, "Warning", "BackOff", "restarting", field_path="spec.containers{main}")
        await clock.settle()
    [event] = await events(client)
    assert (event.type, event.reason, event.message, event.count) == ("Warning", "BackOff", "restarting", 1)
    assert (event.source.component, event.source.host) == ("kubelet", "n1")
    reference = event.involvedObject
    assert (reference.kind, reference.namespace, reference.name, reference.apiVersion) == (
        "Pod",
        "default",
        "web",
        "v1",
    )
    assert reference.uid == stored.metadata.uid
    assert reference.fieldPath == "spec.containers{main}"
    assert event.metadata.name.startswith("web.")
    assert event.firstTimestamp.seconds == int(clock.now().timestamp())


async def test_event_of_the_cluster_lies_in_default(client: FakeClient, clock: FakeClock) -> None:
    namespace = Namespace()
    namespace.metadata.name = "n"
    async with recording(client, clock) as recorder:
        recorder.event(namespace, "Normal", "Made", "made")
        await clock.settle()
    assert [event.metadata.namespace for event in await events(client)] == ["default"]


async def test_equal_events_are_counted(client: FakeClient, clock: FakeClock) -> None:
    async with recording(client, clock) as recorder:
        for _ in range(3):
            recorder.event(pod("web"), "Normal", "Pulled", "image present")
        await clock.settle()
        clock.advance(60)
        recorder.event(pod("web"), "Normal", "Pulled", "image present")
        await clock.settle()
    [event] = await events(client)
    assert event.count == 4
    assert event.lastTimestamp.seconds - event.firstTimestamp.seconds == 60
    assert [call.method for call in client.writes()] == ["BatchCreate", "Patch"]


async def test_A50_ten_thousand_repeats_collapse_to_one_with_a_count(client: FakeClient, clock: FakeClock) -> None:
    """In bursts, 10 s apart, as a container that fails tells of it: each burst is one write at most."""
    async with recording(client, clock) as recorder:
        for _ in range(100):
            for _ in range(100):
                recorder.event(pod("web"), "Warning", "BackOff", "back-off restarting failed container")
            await clock.settle()
            clock.advance(10)
        await clock.settle()
    [event] = await events(client)
    # Of a burst some are counted and the rest held back, so that a noisy object writes little.
    assert 25 <= event.count < 10_000
    assert event.lastTimestamp.seconds > event.firstTimestamp.seconds
    assert len(client.writes()) <= 100


async def test_event_that_has_expired_is_made_anew(client: FakeClient, clock: FakeClock) -> None:
    async with recording(client, clock) as recorder:
        recorder.event(pod("web"), "Normal", "Pulled", "image present")
        await clock.settle()
        await client.delete_collection(Event, "default")
        recorder.event(pod("web"), "Normal", "Pulled", "image present")
        await clock.settle()
    assert [event.count for event in await events(client)] == [1]


async def test_events_of_many_objects_go_in_one_call(client: FakeClient, clock: FakeClock) -> None:
    async with recording(client, clock) as recorder:
        for number in range(50):
            recorder.event(pod(f"web-{number}"), "Normal", "Scheduled", "on n1")
        await clock.settle()
    assert len(await events(client)) == 50
    assert len(client.writes()) == 1


class _SlowClient(FakeClient):
    """Holds creations of Events until they are let go, by the number of the call."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.sizes: list[int] = []
        self._gates: list[asyncio.Event] = []

    async def batch_store(self, objs: Sequence[Stored]) -> list[APIError | None]:
        self.sizes.append(len(objs))
        self._gates.append(gate := asyncio.Event())
        await gate.wait()
        return await super().batch_store(objs)

    def let_go(self, call: int) -> None:
        self._gates[call].set()


async def test_where_more_waits_than_goes_into_a_call_several_are_under_way(clock: FakeClock) -> None:
    client = _SlowClient(clock)
    async with recording(client, clock, capacity=5000) as recorder:
        for number in range(2000):
            recorder.event(pod(f"web-{number}"), "Normal", "Scheduled", "on n1")
        await clock.settle()
        assert client.sizes == [256] * 4
        for call in range(8):
            client.let_go(call)
            await clock.settle()
        # As many calls as one after the other: nothing is cut into smaller pieces.
        assert client.sizes == [256] * 7 + [208]
        await clock.settle()
    assert len(await events(client)) == 2000


async def test_little_goes_in_one_call_at_a_time(clock: FakeClock) -> None:
    client = _SlowClient(clock)
    async with recording(client, clock) as recorder:
        for number in range(100):
            recorder.event(pod(f"web-{number}"), "Normal", "Scheduled", "on n1")
            await clock.settle()
        assert client.sizes == [1]
        client.let_go(0)
        await clock.settle()
        assert client.sizes == [1, 99]
        client.let_go(1)
        await clock.settle()


async def test_event_is_counted_by_the_newest_count_and_not_before_it_is_there(clock: FakeClock) -> None:
    client = _SlowClient(clock)
    async with recording(client, clock, capacity=5000) as recorder:
        recorder.event(pod("web"), "Normal", "Pulled", "image present")
        await clock.settle()
        for lane in range(3):
            recorder.event(pod("web"), "Normal", "Pulled", "image present")
            for number in range(255):
                recorder.event(pod(f"{lane}-{number}"), "Normal", "Scheduled", "on n1")
            await clock.settle()
        assert client.sizes == [1, 255, 255, 255]
        # Those that have seen it again are done first, the newest before the others.
        for call in (3, 2, 1):
            client.let_go(call)
            await clock.settle()
        assert [call.method for call in client.writes()].count("Patch") == 0
        client.let_go(0)
        await clock.settle()
    [event] = [event for event in await events(client) if event.involvedObject.name == "web"]
    assert event.count == 4
    assert [call.method for call in client.writes()].count("Patch") == 1


async def test_overload_is_dropped_and_counted(client: FakeClient, clock: FakeClock) -> None:
    registry = Registry()
    async with recording(client, clock, registry, capacity=2) as recorder:
        for number in range(5):
            recorder.event(pod(f"web-{number}"), "Normal", "Scheduled", "on n1")
        await clock.settle()
        assert recorder.dropped == 3
    assert registry.value("events_discarded_total", reason="overload") == 3
    assert len(await events(client)) == 2


async def test_lost_connection_is_retried_and_refusal_is_not(client: FakeClient, clock: FakeClock) -> None:
    client.server.fail("BatchCreate", Event, ServiceUnavailable("down"), times=2)
    async with recording(client, clock) as recorder:
        recorder.event(pod("a"), "Normal", "Made", "made")
        await clock.run_for(30)
        assert recorder.dropped == 0
        client.server.fail("BatchCreate", Event, Forbidden("namespace is being terminated"))
        recorder.event(pod("b"), "Normal", "Made", "made")
        await clock.run_for(30)
        assert recorder.dropped == 1
        assert [event.involvedObject.name for event in await events(client)] == ["a"]
        recorder.event(pod("b"), "Normal", "Made", "made")
        await clock.run_for(1)
    assert [event.involvedObject.name for event in await events(client)] == ["a", "b"]


async def test_queued_events_are_written_at_shutdown(client: FakeClient, clock: FakeClock) -> None:
    async with recording(client, clock) as recorder:
        await clock.settle()
        recorder.event(pod("a"), "Normal", "Stopping", "bye")
    assert [event.reason for event in await events(client)] == ["Stopping"]


def occurrence(message: str = "m", name: str = "web") -> Occurrence:
    return Occurrence("default", name, "Normal", "Reason", message, "kubelet")


def test_many_similar_events_become_one() -> None:
    correlator = EventCorrelator()
    verdicts = [correlator.judge(occurrence(f"message {number}"), float(number)) for number in range(12)]
    assert [verdict.message.startswith(COMBINED_PREFIX) for verdict in verdicts] == [False] * 10 + [True] * 2
    assert verdicts[10].key == verdicts[11].key


def test_similar_events_far_apart_stay_apart() -> None:
    correlator = EventCorrelator()
    verdicts = [correlator.judge(occurrence(f"message {number}"), number * 601.0) for number in range(20)]
    assert not any(verdict.message.startswith(COMBINED_PREFIX) for verdict in verdicts)


def test_noisy_object_is_held_back_and_others_are_not() -> None:
    correlator = EventCorrelator()
    decisions = [correlator.judge(occurrence(), 0.0).decision for _ in range(30)]
    assert decisions.count(Decision.DROP) == 5
    assert correlator.judge(occurrence(name="other"), 0.0).decision is Decision.CREATE
    assert correlator.judge(occurrence(), 300.0).decision is not Decision.DROP
