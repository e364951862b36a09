"""Leader election by Lease."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tiphys.api.coordination.v1.coordination_pb2 import Lease
from tiphys_apimachinery.errors import ServiceUnavailable
from tiphys_client.fake import FakeClient, FakeServer
from tiphys_client.leader_election import LeaderElector, LeadershipLost, LeaseTimes
from tiphys_component.clock import FakeClock


class Candidate:
    """A process that takes part; it leads until it is stopped."""

    def __init__(self, server: FakeServer, clock: FakeClock, identity: str) -> None:
        self.client = FakeClient(server=server)
        self.elector = LeaderElector(
            self.client, name="scheduler", namespace="kube-system", identity=identity, clock=clock
        )
        self.leading = False
        self.task = asyncio.ensure_future(self.elector.run(self.lead))

    async def lead(self) -> None:
        self.leading = True
        try:
            await asyncio.Event().wait()
        finally:
            self.leading = False

    async def stop(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def server(clock: FakeClock) -> FakeServer:
    return FakeServer(clock)


async def lease(server: FakeServer) -> Lease:
    return await FakeClient(server=server).get(Lease, "scheduler", "kube-system")


async def test_A51_one_leads_and_the_other_waits(server: FakeServer, clock: FakeClock) -> None:
    one, two = Candidate(server, clock, "one"), Candidate(server, clock, "two")
    await clock.run_for(60)
    assert [one.leading, two.leading] == [True, False]
    spec = (await lease(server)).spec
    assert (spec.holderIdentity, spec.leaseDurationSeconds, spec.leaseTransitions) == ("one", 15, 0)
    assert two.elector.holder == "one"
    await one.stop()
    await two.stop()


async def test_lease_is_given_back_at_shutdown(server: FakeServer, clock: FakeClock) -> None:
    one, two = Candidate(server, clock, "one"), Candidate(server, clock, "two")
    await clock.run_for(10)
    await one.stop()
    await clock.run_for(3)
    assert two.leading
    assert (await lease(server)).spec.leaseTransitions == 1
    await two.stop()
    assert (await lease(server)).spec.holderIdentity == ""


async def test_A51_silent_leader_is_followed_within_17_seconds(server: FakeServer, clock: FakeClock) -> None:
    one, two = Candidate(server, clock, "one"), Candidate(server, clock, "two")
    await clock.run_for(10)
    one.client.server = FakeServer(clock)
    one.client.transport = _Dead()
    seen_both = False
    for _ in range(171):
        await clock.run_for(0.1)
        seen_both = seen_both or (one.leading and two.leading)
    assert two.leading
    assert not seen_both
    with pytest.raises(LeadershipLost):
        await one.task
    await two.stop()


class _Dead:
    """A transport that has lost its server."""

    async def unary(self, service: str, method: str, request: bytes, *, timeout_s: float = 30) -> bytes:
        raise ServiceUnavailable("no route")

    def stream(
        self, service: str, method: str, request: bytes, *, timeout_s: float | None = None
    ) -> AsyncGenerator[bytes]:
        raise ServiceUnavailable("no route")

    async def close(self) -> None:
        return None


async def test_short_outage_does_not_end_the_term(server: FakeServer, clock: FakeClock) -> None:
    one = Candidate(server, clock, "one")
    await clock.run_for(10)
    server.fail("Update", Lease, ServiceUnavailable("restarting"), times=3)
    await clock.run_for(20)
    assert one.leading
    await one.stop()


async def test_stopped_process_finds_out_before_it_writes(server: FakeServer, clock: FakeClock) -> None:
    one = Candidate(server, clock, "one")
    await clock.run_for(10)
    assert one.elector.is_leader()
    clock.advance(11)
    assert not one.elector.is_leader()
    await one.stop()


async def test_stolen_lease_ends_the_term_at_once(server: FakeServer, clock: FakeClock) -> None:
    one = Candidate(server, clock, "one")
    await clock.run_for(5)
    stolen = await lease(server)
    stolen.spec.holderIdentity = "thief"
    await FakeClient(server=server).update(stolen)
    await clock.run_for(3)
    with pytest.raises(LeadershipLost, match="held by thief"):
        await one.task
    assert not one.leading
    assert (await lease(server)).spec.holderIdentity == "thief"


async def test_end_and_failure_of_the_work_give_the_lease_back(server: FakeServer, clock: FakeClock) -> None:
    elector = LeaderElector(
        FakeClient(server=server), name="scheduler", namespace="kube-system", identity="one", clock=clock
    )

    async def succeed() -> None:
        return None

    async def fail() -> None:
        raise KeyError("bug")

    await elector.run(succeed)
    assert (await lease(server)).spec.holderIdentity == ""
    with pytest.raises(KeyError):
        await elector.run(fail)
    assert (await lease(server)).spec.holderIdentity == ""


def test_times_that_let_two_lead_are_refused() -> None:
    with pytest.raises(ValueError, match="lease_duration_s > renew_deadline_s"):
        LeaseTimes(lease_duration_s=10, renew_deadline_s=10)


async def test_the_next_life_under_the_same_name_takes_over_at_once() -> None:
    clock = FakeClock()
    client = FakeClient(clock)

    async def hold() -> None:
        await asyncio.get_running_loop().create_future()

    def elector() -> LeaderElector:
        return LeaderElector(client, name="l", namespace="kube-system", identity="only-one", clock=clock)

    first = asyncio.create_task(elector().run(hold))
    async with asyncio.timeout(5):
        while client.find_stored(Lease, "l", "kube-system") is None:  # noqa: ASYNC110 - written by another task
            await asyncio.sleep(0)
    client.server.fail("Update", Lease, ServiceUnavailable("killed"), times=1)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)  # noqa: TID251 - its end is all that is waited for
    led = asyncio.Event()

    async def lead() -> None:
        led.set()

    async with asyncio.timeout(5):
        await elector().run(lead)
    assert led.is_set()
    assert clock.monotonic() == 0


async def test_a_leader_renews_without_looking_first_and_looks_when_somebody_wrote(
    server: FakeServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    one = Candidate(server, clock, "one")
    await clock.run_for(10)
    get = one.client.get

    async def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal looks
        looks += 1
        return await get(*args, **kwargs)

    monkeypatch.setattr(one.client, "get", counted)
    await clock.run_for(60)
    assert (one.leading, looks) == (True, 0)
    labelled = await lease(server)
    labelled.metadata.labels["seen"] = "by somebody"
    await FakeClient(server=server).update(labelled)
    await clock.run_for(60)
    assert (one.leading, looks) == (True, 1)
    assert (await lease(server)).metadata.labels["seen"] == "by somebody"
    await one.stop()
