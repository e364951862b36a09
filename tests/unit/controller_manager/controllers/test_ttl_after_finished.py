"""Jobs that go some time after their end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.controller_manager.controllers.jobs import job
from tests.unit.controller_manager.harness import House, house
from tiphys.api.batch.v1 import batch_pb2
from tiphys_apimachinery.meta import is_being_deleted, to_time

TTL = "ttl-after-finished-controller"


async def finished(built: House, kind: str = "Complete", **spec: Any) -> None:
    made = job(**spec)
    condition = made.status.conditions.add(type=kind, status="True")
    condition.lastTransitionTime.CopyFrom(to_time(built.clock.now()))
    built.client.seed(made)
    await built.settle()


async def is_there(built: House) -> bool:
    """Whether the Job is there and nobody has asked for its deletion."""
    found = built.client.find_stored(batch_pb2.Job, "pi", "default")
    return found is not None and not is_being_deleted(found)


@pytest.mark.parametrize("kind", ["Complete", "Failed"])
async def test_B22_a_job_goes_when_its_time_is_over(kind: str) -> None:
    async with house(TTL) as built:
        await finished(built, kind, ttlSecondsAfterFinished=30)
        await built.run_for(29)
        assert await is_there(built)
        await built.run_for(1.5)
        assert not await is_there(built)


async def test_B22_a_job_without_patience_goes_at_once() -> None:
    async with house(TTL) as built:
        await finished(built, ttlSecondsAfterFinished=0)
        assert not await is_there(built)


async def test_B22_others_stay() -> None:
    async with house(TTL) as built:
        await finished(built)
        await finished(built, "Suspended", ttlSecondsAfterFinished=0)
        await built.run_for(1000)
        assert await is_there(built)


async def test_B22_the_time_may_be_lengthened_while_it_runs() -> None:
    async with house(TTL) as built:
        await finished(built, ttlSecondsAfterFinished=30)
        await built.run_for(20)
        made = await built.client.get(batch_pb2.Job, "pi", "default")
        made.spec.ttlSecondsAfterFinished = 100
        await built.client.update(made)
        await built.run_for(79)
        assert await is_there(built)
        await built.run_for(2)
        assert not await is_there(built)


async def test_B22_another_job_of_the_name_is_left_alone() -> None:
    async with house(TTL) as built:
        await finished(built, ttlSecondsAfterFinished=30)
        await built.client.delete(batch_pb2.Job, "pi", "default", propagation="Background")
        await built.client.create(job())
        await built.run_for(100)
        assert await is_there(built)
