"""What a scrape of the scheduler says, under kube-scheduler's names."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.scheduler.objects import node, pod_message
from tests.unit.scheduler.world import World, world
from tiphys_scheduler.framework.interface import Event

PROFILE = "default-scheduler"
NAMES = {
    "scheduler_pending_pods",
    "scheduler_unschedulable_pods",
    "scheduler_cache_size",
    "scheduler_schedule_attempts",
    "scheduler_queue_incoming_pods",
    "scheduler_preemption_attempts",
    "scheduler_preemption_victims",
    "scheduler_scheduling_attempt_duration_seconds",
    "scheduler_pod_scheduling_sli_duration_seconds",
    "scheduler_pod_scheduling_attempts",
    "scheduler_framework_extension_point_duration_seconds",
    "scheduler_plugin_execution_duration_seconds",
}


def scraped(found: World) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, which come in the order of their names."""
    families = list(text_string_to_metric_families(found.registry.render().decode()))
    samples = [sample for family in families for sample in family.samples]
    return {(s.name, *(s.labels[key] for key in sorted(s.labels))): s.value for s in samples}


def names(found: World) -> set[str]:
    return {family.name for family in text_string_to_metric_families(found.registry.render().decode())}


async def test_J5_tries_waits_and_sizes_are_told_by_upstreams_names() -> None:
    async with world(node("a", cpu="2")) as found:
        for name, cpu in (("fits", "1"), ("large", "8")):
            await found.client.create(pod_message(name, cpu=cpu))
        gated = pod_message("gated")
        gated.spec.schedulingGates.add(name="example.com/wait")
        await found.client.create(gated)
        await found.until(lambda: found.node_of("fits") == "a" and found.place_of("large") == "unschedulable")
        await found.until(lambda: found.scheduler.cache.assumed() == 0)
        told = scraped(found)
        assert told["scheduler_schedule_attempts_total", PROFILE, "scheduled"] == 1
        assert told["scheduler_schedule_attempts_total", PROFILE, "unschedulable"] == 1
        waiting = {
            queue: told["scheduler_pending_pods", queue] for queue in ("active", "backoff", "unschedulable", "gated")
        }
        assert waiting == {"active": 0, "backoff": 0, "unschedulable": 1, "gated": 1}
        assert told["scheduler_unschedulable_pods", "NodeResourcesFit", PROFILE] == 1
        assert told["scheduler_unschedulable_pods", "SchedulingGates", PROFILE] == 1
        sizes = [told["scheduler_cache_size", kind] for kind in ("nodes", "pods", "assumed_pods")]
        assert sizes == [1, 1, 0]
        assert told["scheduler_scheduling_attempt_duration_seconds_count", PROFILE, "scheduled"] == 1
        assert told["scheduler_pod_scheduling_sli_duration_seconds_count", "1"] == 1
        assert told["scheduler_pod_scheduling_attempts_bucket", "1.0"] == 1
        assert told["scheduler_queue_incoming_pods_total", "PodAdd", "active"] == 2
        assert told["scheduler_queue_incoming_pods_total", "PodAdd", "gated"] == 1
        assert told["scheduler_queue_incoming_pods_total", "ScheduleAttemptFailure", "unschedulable"] == 1


async def test_J5_the_time_behind_a_gate_is_no_time_of_scheduling() -> None:
    async with world(node("a")) as found:
        gated = pod_message("gated")
        gated.spec.schedulingGates.add(name="example.com/wait")
        await found.client.create(gated)
        await found.until(lambda: found.place_of("gated") == "gated")
        found.clock.advance(500)
        free = found.client.stored(type(gated), "gated", "default")
        del free.spec.schedulingGates[:]
        await found.client.update(free)
        await found.until(lambda: found.node_of("gated") == "a")
        await found.until(lambda: scraped(found).get(("scheduler_pod_scheduling_sli_duration_seconds_count", "1")) == 1)
        assert scraped(found)["scheduler_pod_scheduling_sli_duration_seconds_sum", "1"] == pytest.approx(0, abs=1)


async def test_J5_preemptions_and_their_victims_are_counted() -> None:
    async with world(node("a", cpu="2")) as found:
        for number in range(2):
            await found.client.create(pod_message(f"low{number}", cpu="1"))
        await found.until(lambda: all(found.node_of(f"low{number}") for number in range(2)))
        found.clock.advance(10)
        await found.client.create(pod_message("vip", cpu="2", priority=100))
        await found.until(lambda: found.place_of("vip") == "unschedulable")
        told = scraped(found)
        assert told["scheduler_preemption_attempts_total",] == 1
        assert told["scheduler_preemption_victims_sum",] == 2
        point = ("scheduler_framework_extension_point_duration_seconds_count", "PostFilter", PROFILE, "Success")
        assert told[point] == 1
        await found.until(lambda: names(found) >= NAMES)


async def test_J5_plugins_are_timed_now_and_then() -> None:
    async with world(node("a")) as found:
        await found.client.create(pod_message("first", cpu="1m"))
        await found.until(lambda: found.node_of("first") == "a")
        assert not [key for key in scraped(found) if key[0] == "scheduler_plugin_execution_duration_seconds_count"]
        found.clock.advance(10)
        for number in range(5):
            await found.client.create(pod_message(f"p{number}", cpu="1m"))
            await found.until(lambda: found.node_of(f"p{number}") == "a")  # noqa: B023 - waited for at once
        counts = {
            key[1:]: n
            for key, n in scraped(found).items()
            if key[0] == "scheduler_plugin_execution_duration_seconds_count"
        }
        # Once in ten seconds, however many pods there are.
        assert counts["Filter", "NodeResourcesFit", "Success"] == 1
        assert counts["Score", "ImageLocality", "Success"] == 1


def test_every_event_has_its_name_in_metrics() -> None:
    assert len({event.told for event in Event}) == len(Event)
