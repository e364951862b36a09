"""What the binder tells of calls whose answer was lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from tests.support.promptness import PROMPTLY_S
from tests.unit.scheduler.objects import pod_message
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.errors import APIError, Conflict, NotFound, ServiceUnavailable, Timeout, TooManyRequests
from tiphys_client.fake import FakeClient
from tiphys_component.clock import FakeClock
from tiphys_scheduler.binder import Binder
from tiphys_scheduler.pod_info import pod_info
from tiphys_scheduler.scheduling_queue import Waiting


@dataclass
class Bench:
    """One pod, and a binder that is to put it on node "a"."""

    client: FakeClient
    clock: FakeClock
    binder: Binder
    told: list[APIError | None]

    async def bind(self) -> None:
        pod = self.client.stored(Pod, "p", "default")
        assert pod is not None
        self.binder.add(Waiting(pod_info(pod), 0), "a", self.told.append)

    async def until(self, is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PROMPTLY_S):
            while not is_true():  # noqa: ASYNC110 - what is waited for is in another task's hands
                await asyncio.sleep(0)

    def calls(self, method: str) -> int:
        return sum(call.method == method for call in self.client.server.calls)

    @property
    def node(self) -> str:
        pod = self.client.stored(Pod, "p", "default")
        return pod.spec.nodeName if pod is not None else ""


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    clock = FakeClock()
    client = FakeClient(clock)
    client.seed(pod_message("p"))
    made = Bench(client, clock, Binder(client, clock=clock), [])
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made.binder.run())
        yield made
        running.cancel()


@pytest.mark.parametrize(
    "lost", [Timeout("no answer in time"), ServiceUnavailable("connection lost")], ids=["timeout", "connection lost"]
)
async def test_a_pod_whose_binding_was_carried_out_without_an_answer_is_bound(lost: APIError) -> None:
    async with bench() as found:
        found.client.server.fail("BatchBind", Pod, lost, after=True)
        await found.bind()
        await found.until(lambda: bool(found.told))
        assert (found.told, found.node) == ([None], "a")


async def test_a_binding_that_was_not_carried_out_is_told_with_its_error() -> None:
    async with bench() as found:
        found.client.server.fail("BatchBind", Pod, ServiceUnavailable("connection refused"))
        await found.bind()
        await found.until(lambda: bool(found.told))
        assert ([type(error) for error in found.told], found.node) == ([ServiceUnavailable], "")


async def test_nothing_is_told_before_it_is_known_and_the_next_bindings_do_not_wait() -> None:
    async with bench() as found:
        found.client.seed(pod_message("next"))
        found.client.server.fail("BatchBind", Pod, Timeout("no answer in time"), after=True)
        found.client.server.fail("Get", Pod, ServiceUnavailable("connection refused"), times=2)
        await found.bind()
        await found.until(lambda: found.calls("Get") == 1)
        others: list[APIError | None] = []
        other = found.client.stored(Pod, "next", "default")
        found.binder.add(Waiting(pod_info(other), 0), "b", others.append)
        await found.until(lambda: others == [None])
        assert found.told == []

        def has_asked(times: int) -> bool:
            return found.calls("Get") == times

        for asked in (2, 3):
            found.clock.advance(1)
            await found.until(partial(has_asked, asked))
        await found.until(lambda: found.told == [None])


async def test_a_pod_that_went_meanwhile_is_told_to_be_gone() -> None:
    async with bench() as found:
        found.client.server.fail("BatchBind", Pod, Timeout("no answer in time"))
        found.client.server.fail("Get", Pod, ServiceUnavailable("connection refused"))
        await found.bind()
        await found.until(lambda: found.calls("Get") == 1)
        await found.client.delete(Pod, "p", "default", grace_period_s=0)
        found.clock.advance(1)
        await found.until(lambda: bool(found.told))
        assert isinstance(found.told[0], NotFound)


@pytest.mark.parametrize("answer", [TooManyRequests("later"), Conflict("somebody was faster")], ids=["429", "409"])
async def test_an_answer_is_not_asked_for_twice(answer: APIError) -> None:
    async with bench() as found:
        found.client.server.fail("BatchBind", Pod, answer)
        await found.bind()
        await found.until(lambda: found.told == [answer])
        assert found.calls("Get") == 0
