"""Jobs on a server that fails at random, under controllers that die at random: nothing is lost or counted twice."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.unit.controller_manager.controllers.jobs import JOB, bury, condition, end, job, running, stored, submit
from tests.unit.controller_manager.harness import House, house
from tiphys.api.batch.v1 import batch_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.errors import Conflict, ServiceUnavailable
from tiphys_client.fake import FakeClient

COMPLETIONS, PARALLELISM = 4, 2
# What may fail: the call, and whether the server has carried it out before the answer was lost.
FAULTS = [
    ("UpdateStatus", batch_pb2.Job, False),
    ("UpdateStatus", batch_pb2.Job, True),
    ("Patch", pod_pb2.Pod, False),
    ("Patch", pod_pb2.Pod, True),
    ("BatchCreate", pod_pb2.Pod, False),
    ("BatchCreate", pod_pb2.Pod, True),
]


def break_something(built: House, rng: random.Random) -> None:
    method, cls, is_done = rng.choice(FAULTS)
    error: Any = ServiceUnavailable("away") if is_done or rng.random() < 0.5 else Conflict("somebody was faster")
    built.client.server.fail(method, cls, error, times=rng.randint(1, 2), after=is_done)


async def live(built: House, rng: random.Random, succeeded: set[str]) -> bool:
    """A stretch of a Job's life under one controller; whether it is over."""
    for _ in range(rng.randint(1, 6)):
        await built.run_for(rng.choice([0.0, 2.0, 400.0]))
        await bury(built)
        alive = await running(built)
        assert len(alive) <= PARALLELISM
        if condition(await stored(built), "Complete"):
            return True
        if rng.random() < 0.6:
            break_something(built, rng)
        if not alive:
            continue
        pod = rng.choice(alive)
        what = rng.choice(["succeed", "succeed", "succeed", "fail", "delete"])
        if what == "delete":
            await built.client.delete(pod_pb2.Pod, pod.metadata.name, "default")
        else:
            await end(built, pod, 0 if what == "succeed" else 1)
        if what == "succeed":
            succeeded.add(pod.metadata.uid)
    return False


@pytest.mark.parametrize("mode", ["NonIndexed", "Indexed"])
@pytest.mark.parametrize("seed", range(8))
async def test_B20_every_success_is_counted_once_whatever_fails(seed: int, mode: str) -> None:
    rng = random.Random(seed)
    client: FakeClient | None = None
    succeeded: set[str] = set()
    for _ in range(60):
        async with house(JOB, client=client) as built:
            if client is None:
                made = job(completionMode=mode, completions=COMPLETIONS, parallelism=PARALLELISM, backoffLimit=1000)
                await submit(built, made)
            client = built.client
            if await live(built, rng, succeeded):
                break
    else:
        pytest.fail("the Job never ended")
    done: Any = client.stored(batch_pb2.Job, "pi", "default")
    assert done.status.succeeded == len(succeeded) == COMPLETIONS
    assert not done.status.uncountedTerminatedPods.ListFields()
    if mode == "Indexed":
        assert done.status.completedIndexes == "0-3"
