"""CronJobs: when a run is due, what becomes of those that were missed, and which Jobs are kept."""

from __future__ import annotations

import datetime
import time
from typing import Any

import pytest

from tests.unit.controller_manager.harness import House, house, names
from tiphys.api.batch.v1 import batch_pb2
from tiphys_apimachinery.codec.json_codec import from_json
from tiphys_apimachinery.cron import UTC, parse_cron
from tiphys_apimachinery.errors import ServiceUnavailable
from tiphys_apimachinery.meta import get_controller_of, to_datetime, to_time
from tiphys_controller_manager.controllers.cronjob.plan import (
    SCHEDULED_AT,
    beyond_history,
    find_due,
    make_job,
    run_name,
)

CRON = "cronjob-controller"
CronJob = batch_pb2.CronJob
Job = batch_pb2.Job


def cron_job(schedule: str = "*/5 * * * *", **spec: Any) -> CronJob:
    """A CronJob; further fields of its spec as in YAML."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}
    template = {
        "metadata": {"labels": {"run": "nightly"}, "annotations": {"by": "hand"}},
        "spec": {"backoffLimit": 2, "template": {"spec": pod}},
    }
    spec = {"schedule": schedule, "concurrencyPolicy": "Allow", "jobTemplate": template, **spec}
    return from_json(CronJob, {"metadata": {"name": "nightly", "namespace": "default"}, "spec": spec})


def at(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=UTC)


async def submit(built: House, made: CronJob) -> None:
    await built.client.create(made)
    await built.settle()


async def stored(built: House) -> Any:
    return await built.client.get(CronJob, "nightly", "default")


async def finish(built: House, job: Any, kind: str = "Complete") -> None:
    """The Job ends now."""
    job = await built.client.get(Job, job.metadata.name, "default")
    now = to_time(built.clock.now())
    job.status.conditions.add(type=kind, status="True")
    job.status.startTime.CopyFrom(now)
    if kind == "Complete":
        job.status.completionTime.CopyFrom(now)
    await built.client.update_status(job)
    await built.settle()


@pytest.mark.parametrize(
    ("schedule", "since", "now", "due", "many"),
    [
        pytest.param("0 * * * *", "2026-01-01 10:00", "2026-01-01 10:59", None, False, id="not yet"),
        pytest.param("0 * * * *", "2026-01-01 10:00", "2026-01-01 11:00", "2026-01-01 11:00", False, id="just now"),
        pytest.param("0 * * * *", "2026-01-01 10:30", "2026-01-01 14:30", "2026-01-01 14:00", False, id="the latest"),
        pytest.param("* * * * *", "2026-01-01 10:00", "2026-01-01 11:40", "2026-01-01 11:40", False, id="a hundred"),
        pytest.param("* * * * *", "2026-01-01 10:00", "2026-01-01 11:41", "2026-01-01 11:41", True, id="one more"),
        pytest.param("* * * * *", "2016-01-01 10:00", "2026-01-01 11:41", "2026-01-01 11:41", True, id="ten years"),
        pytest.param("*/9 1 * jan *", "2016-01-01 00:00", "2026-12-01 00:00", "2026-01-31 01:54", True, id="unevenly"),
        pytest.param("0 * * * *", "2026-01-01 10:00", "2025-01-01 10:00", None, False, id="the clock was set back"),
        pytest.param("0 0 31 2 *", "2016-01-01 00:00", "2026-01-01 00:00", None, False, id="never"),
    ],
)
def test_B23_the_latest_missed_moment_is_due(schedule: str, since: str, now: str, due: str | None, many: bool) -> None:
    began = time.process_time()
    found = find_due(parse_cron(schedule), at(since), at(now))
    assert time.process_time() - began < 1.0
    assert (None if found is None else found.moment) == (None if due is None else at(due))
    assert found is None or found.is_one_of_many == many


async def test_B23_each_moment_starts_one_job() -> None:
    async with house(CRON) as built:
        await submit(built, cron_job())
        begin = built.clock.now()
        await built.run_for(16 * 60)
        jobs = await built.all(Job)
        assert len(jobs) == 3
        made = await stored(built)
        last = to_datetime(made.status.lastScheduleTime)
        assert last is not None
        assert last <= begin + datetime.timedelta(minutes=15)
        assert sorted(reference.name for reference in made.status.active) == names(jobs)
        newest = next(job for job in jobs if job.metadata.name == run_name(made, last))
        owner = get_controller_of(newest)
        assert owner is not None
        assert (owner.kind, owner.name, owner.uid) == ("CronJob", "nightly", made.metadata.uid)
        assert newest.metadata.labels["run"] == "nightly"
        assert newest.metadata.annotations["by"] == "hand"
        assert newest.metadata.annotations[SCHEDULED_AT] == last.strftime("%Y-%m-%dT%H:%M:%SZ")
        assert newest.spec.backoffLimit == 2


def test_B23_a_job_says_its_moment_in_the_zone_of_its_schedule() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
    job = make_job(cron_job(), at("2026-01-01 10:00"), zone)
    assert job.metadata.annotations[SCHEDULED_AT] == "2026-01-01T15:30:00+05:30"


async def test_B23_jobs_that_end_leave_the_list_and_stay_in_the_history() -> None:
    async with house(CRON) as built:
        await submit(built, cron_job(successfulJobsHistoryLimit=2, failedJobsHistoryLimit=1))
        for kind in ("Complete", "Failed", "Complete", "Failed", "Complete"):
            await built.run_for(300)
            (reference,) = (await stored(built)).status.active
            await finish(built, await built.client.get(Job, reference.name, "default"), kind)
        ended = await stored(built)
        assert not ended.status.active
        kinds = sorted(job.status.conditions[0].type for job in await built.all(Job))
        assert kinds == ["Complete", "Complete", "Failed"]
        assert abs(ended.status.lastSuccessfulTime.seconds - built.clock.now().timestamp()) <= 2
        assert built.events.reasons().count("SawCompletedJob") == 5
        assert built.events.reasons().count("SuccessfulDelete") == 2


async def test_B23_forbidden_to_overlap_a_run_waits_for_the_next_moment() -> None:
    async with house(CRON) as built:
        await submit(built, cron_job(concurrencyPolicy="Forbid"))
        await built.run_for(310)
        (first,) = await built.all(Job)
        await built.run_for(600)
        assert len(await built.all(Job)) == 1
        assert "JobAlreadyActive" in built.events.reasons()
        await finish(built, first)
        await built.run_for(1)
        # The latest moment that was missed is made up for.
        assert len(await built.all(Job)) == 2


async def test_B23_replacing_the_run_before_goes() -> None:
    async with house(CRON) as built:
        await submit(built, cron_job(concurrencyPolicy="Replace"))
        await built.run_for(310)
        (first,) = await built.all(Job)
        await built.run_for(300)
        (second,) = await built.all(Job)
        assert second.metadata.name != first.metadata.name
        assert [reference.name for reference in (await stored(built)).status.active] == [second.metadata.name]


async def test_B23_a_suspended_cron_job_starts_nothing_and_later_makes_up_for_one() -> None:
    async with house(CRON) as built:
        await submit(built, cron_job(suspend=True))
        await built.run_for(3600)
        assert await built.all(Job) == []
        made = await stored(built)
        made.spec.suspend = False
        await built.client.update(made)
        await built.settle()
        assert len(await built.all(Job)) == 1


async def test_B23_beyond_its_deadline_a_run_is_not_made_up_for() -> None:
    async with house(CRON) as built:
        await submit(built, cron_job("0 * * * *", suspend=True, startingDeadlineSeconds=60))
        await built.run_for(2 * 3600 + 120)
        made = await stored(built)
        made.spec.suspend = False
        await built.client.update(made)
        await built.settle()
        assert await built.all(Job) == []
        await built.run_for(3600)
        assert len(await built.all(Job)) == 1


async def test_B23_after_very_many_missed_moments_one_run_starts_with_a_warning() -> None:
    async with house(CRON) as built:
        made = cron_job("* * * * *")
        made.metadata.creationTimestamp.CopyFrom(to_time(built.clock.now() - datetime.timedelta(days=9)))
        built.client.seed(made)
        await built.settle()
        assert len(await built.all(Job)) == 1
        assert "TooManyMissedTimes" in built.events.reasons()


async def test_B23_a_run_is_not_started_twice_though_its_status_was_lost() -> None:
    async with house(CRON) as built:
        built.client.server.fail("UpdateStatus", CronJob, ServiceUnavailable("gone for a moment"))
        await submit(built, cron_job())
        await built.run_for(320)
        (job,) = await built.all(Job)
        made = await stored(built)
        assert [reference.uid for reference in made.status.active] == [job.metadata.uid]
        assert made.status.HasField("lastScheduleTime")


async def test_B23_a_job_made_by_hand_from_it_is_no_run() -> None:
    async with house(CRON) as built:
        await submit(built, cron_job("0 0 1 1 *", concurrencyPolicy="Forbid"))
        by_hand = make_job(await stored(built), at("2026-01-01 10:00"), UTC)
        by_hand.metadata.name = "by-hand"
        created = await built.client.create(by_hand)
        await built.settle()
        assert not (await stored(built)).status.active
        assert "UnexpectedJob" in built.events.reasons()
        await finish(built, created)
        assert (await stored(built)).status.HasField("lastSuccessfulTime")


async def test_B23_a_run_whose_job_was_deleted_leaves_the_list() -> None:
    async with house(CRON) as built:
        await submit(built, cron_job(concurrencyPolicy="Forbid"))
        await built.run_for(310)
        (job,) = await built.all(Job)
        await built.client.delete(Job, job.metadata.name, "default", propagation="Background")
        await built.settle()
        assert not (await stored(built)).status.active
        assert "MissingJob" in built.events.reasons()


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param({"timeZone": "Mars/Olympus"}, "UnknownTimeZone", id="zone"),
        pytest.param({"schedule": "TZ=UTC 0 * * * *"}, "UnparseableSchedule", id="schedule"),
    ],
)
async def test_B23_what_cannot_be_read_is_told_and_starts_nothing(spec: dict[str, Any], reason: str) -> None:
    async with house(CRON) as built:
        await submit(built, cron_job(**spec))
        await built.run_for(3600)
        assert await built.all(Job) == []
        assert built.events.reasons() == [reason]


async def test_B23_the_time_zone_decides_when_it_is_midnight() -> None:
    async with house(CRON) as built:
        await submit(built, cron_job("0 0 * * *", timeZone="Asia/Tokyo"))
        await built.run_for(86_400)
        (job,) = await built.all(Job)
        assert job.metadata.annotations[SCHEDULED_AT].endswith("T00:00:00+09:00")


def test_B23_histories_keep_the_newest_and_all_where_no_limit_is_given() -> None:
    made = cron_job(successfulJobsHistoryLimit=0)
    jobs = []
    for number, kind in enumerate(("Complete", "Failed", "Complete", "")):
        job = make_job(made, at(f"2026-01-01 1{number}:00"), UTC)
        if kind:
            job.status.conditions.add(type=kind, status="True")
        jobs.append(job)
    assert beyond_history(made, jobs) == [jobs[0], jobs[2]]
    made.spec.successfulJobsHistoryLimit = 1
    assert len(beyond_history(made, jobs)) == 1
