"""When samples are taken: only when somebody asks, and not more often than every ten seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import grpc

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_component.clock import FakeClock
from tiphys_cri.errors import CRIError
from tiphys_kubelet.observation import ContainerObservation, ContainerPhase, PodObservation
from tiphys_kubelet.runtime import labels
from tiphys_kubelet.stats.cgroup_files import CgroupFiles
from tiphys_kubelet.stats.sampler import Groups, UsageSampler

T = TypeVar("T")
S = 1_000_000_000


class Burning:
    """A runtime whose one container uses half a core."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.asked = 0
        self.broken = False
        self.gate: asyncio.Event | None = None

    async def list_container_stats(self) -> list[cri.ContainerStats]:
        """The container, another that has ended, and one of somebody else."""
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.broken:
            raise CRIError("no", code=grpc.StatusCode.UNAVAILABLE)
        one = cri.ContainerStats()
        one.attributes.id, one.attributes.metadata.name = "c1", "app"
        one.attributes.labels.update({labels.POD_UID: "u", labels.POD_NAME: "web", labels.POD_NAMESPACE: "default"})
        ended = cri.ContainerStats()
        ended.CopyFrom(one)
        one.cpu.timestamp = int(self._clock.now().timestamp() * S)
        one.cpu.usage_core_nano_seconds.value = int(self._clock.monotonic() * S / 2)
        one.memory.working_set_bytes.value = 4096
        stranger = cri.ContainerStats()
        stranger.cpu.timestamp = 1
        return [one, ended, stranger]


def make(tmp_path: Path) -> tuple[UsageSampler, Burning, FakeClock]:
    """A sampler of one pod."""
    clock = FakeClock()
    runtime: Any = Burning(clock)
    pod = Pod()
    pod.metadata.uid = "u"
    seen = ContainerObservation("c1", "app", 0, "s", ContainerPhase.RUNNING, started_at_ns=5 * S, image="busybox")
    sampler = UsageSampler(
        runtime,
        clock,
        groups=Groups("/node", lambda _: "/pod", CgroupFiles(tmp_path)),
        pods=lambda: [pod],
        observed=lambda: [PodObservation("u", containers=(seen,))],
    )
    return sampler, runtime, clock


async def finish(clock: FakeClock, work: Awaitable[T], *, seconds: float = 2.0) -> T:
    """The result of what may sleep, and read files in a thread."""
    task = asyncio.ensure_future(work)
    while not task.done():
        # A thread may be at work: it wakes the loop by itself.
        await asyncio.wait([task], timeout=0.001)
        if not task.done():
            await clock.run_for(seconds)
    return task.result()


async def test_first_who_asks_waits_a_second_for_a_rate(tmp_path: Path) -> None:
    sampler, runtime, clock = make(tmp_path)
    usage = await finish(clock, sampler.usage())
    assert runtime.asked == 2
    assert abs(usage.containers["c1"].nano_cores - S // 2) < S // 100
    (one,) = usage.sample.containers
    assert (one.name, one.pod, one.image, one.started_ns) == ("app", "web", "busybox", 5 * S)
    assert one.reading.working_set_bytes == 4096


async def test_who_asks_soon_again_gets_the_same(tmp_path: Path) -> None:
    sampler, runtime, clock = make(tmp_path)
    first = await finish(clock, sampler.usage(), seconds=1.0)
    assert await sampler.usage() == first
    assert await sampler.sample() is first.sample
    assert runtime.asked == 2


async def test_regular_scrape_never_waits_and_has_the_rate_since_the_one_before(tmp_path: Path) -> None:
    sampler, runtime, clock = make(tmp_path)
    await finish(clock, sampler.usage(), seconds=1.0)
    await clock.run_for(15.0)
    before = clock.monotonic()
    usage = await sampler.usage()
    assert clock.monotonic() == before
    assert 15.0 <= usage.containers["c1"].window_s < 18.0
    assert runtime.asked == 3


async def test_rate_is_never_over_more_than_a_minute(tmp_path: Path) -> None:
    sampler, _, clock = make(tmp_path)
    await finish(clock, sampler.usage(), seconds=1.0)
    await clock.run_for(300.0)
    usage = await finish(clock, sampler.usage(), seconds=1.0)
    assert usage.containers["c1"].window_s < 5.0


async def test_runtime_that_does_not_answer_is_told_and_asked_again(tmp_path: Path) -> None:
    sampler, runtime, _ = make(tmp_path)
    runtime.broken = True
    assert (await sampler.sample()).failed
    runtime.broken = False
    sample = await sampler.sample()
    assert not sample.failed
    assert [one.id for one in sample.containers] == ["c1"]


async def test_askers_at_once_share_one_sample(tmp_path: Path) -> None:
    sampler, runtime, clock = make(tmp_path)

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(sampler.usage())
            group.create_task(sampler.usage())

    await finish(clock, both(), seconds=1.0)
    assert runtime.asked == 2


async def test_asker_that_goes_away_leaves_nothing_half_done(tmp_path: Path) -> None:
    sampler, runtime, clock = make(tmp_path)
    await sampler.sample()
    runtime.gate = asyncio.Event()
    leaving = asyncio.ensure_future(sampler.usage())
    await clock.run_for(1.0)
    assert runtime.asked == 2
    leaving.cancel()
    await asyncio.wait([leaving])
    assert leaving.cancelled()
    runtime.gate = None
    assert "c1" in (await sampler.usage()).containers
