"""A pod that ends is not the scheduler's work; what it used is free at once, however it went."""

from __future__ import annotations

from tests.unit.scheduler.objects import node, pod_message
from tests.unit.scheduler.world import world
from tiphys.api.core.v1.pod_pb2 import Pod


async def test_C12_the_scheduler_only_frees_what_a_deleted_pod_used() -> None:
    async with world(node("a", cpu="1")) as found:
        await found.client.create(pod_message("p", cpu="1"))
        await found.until(lambda: found.node_of("p") == "a")
        writes = len(found.client.writes())
        await found.client.delete(Pod, "p", "default", grace_period_s=0)
        await found.until(lambda: not found.scheduler.cache.node_of("default/p"))
        # The deletion itself is the only write.
        assert len(found.client.writes()) == writes + 1
        assert int(found.scheduler.cache.columns.requested.sum()) == 0


async def test_C6_a_pod_that_names_its_node_is_counted_and_never_queued() -> None:
    async with world(node("a", cpu="1")) as found:
        await found.client.create(pod_message("named", cpu="1", nodeName="a"))
        await found.until(lambda: found.scheduler.cache.node_of("default/named") == "a")
        assert found.place_of("named") == ""
        await found.client.create(pod_message("late", cpu="1"))
        await found.until(lambda: found.place_of("late") == "unschedulable")


async def test_B32_a_pod_that_was_made_smaller_frees_room_once_its_node_has_done_it() -> None:
    async with world(node("a", cpu="1")) as found:
        await found.client.create(pod_message("large", cpu="900m"))
        await found.until(lambda: found.node_of("large") == "a")
        await found.client.create(pod_message("late", cpu="500m"))
        await found.until(lambda: found.place_of("late") == "unschedulable")

        async def tell(has: str) -> None:
            pod = await found.client.get(Pod, "large", "default")
            del pod.status.containerStatuses[:]
            told = pod.status.containerStatuses.add(name="c")
            told.allocatedResources["cpu"].string = told.resources.requests["cpu"].string = has
            await found.client.update_status(pod)

        await tell("900m")
        pod = await found.client.get(Pod, "large", "default")
        pod.spec.containers[0].resources.requests["cpu"].string = "200m"
        await found.client.update(pod)
        await found.clock.run_for(1.0)
        assert found.node_of("late") == "", "its node has not given anything back yet"
        await tell("200m")
        await found.until(lambda: found.node_of("late") == "a")
