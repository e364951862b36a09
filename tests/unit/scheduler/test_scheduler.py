"""The whole cycle against an API server in memory."""

from __future__ import annotations

from tests.unit.scheduler.objects import node, pod_message
from tests.unit.scheduler.world import world
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.errors import ServiceUnavailable


async def test_a_pod_is_bound_to_the_node_that_fits() -> None:
    async with world(node("small", cpu="1"), node("large", cpu="8")) as found:
        await found.client.create(pod_message("p", cpu="2"))
        await found.until(lambda: found.node_of("p") == "large")
        await found.until(lambda: ("p", "Scheduled", "Successfully assigned default/p to large") in found.events.seen)


async def test_a_pod_without_a_node_says_why_and_goes_when_one_comes() -> None:
    async with world(node("small", cpu="1")) as found:
        await found.client.create(pod_message("p", cpu="2"))
        message = (
            "0/1 nodes are available: 1 Insufficient cpu. "
            "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        )
        await found.until(lambda: ("p", "FailedScheduling", message) in found.events.seen)

        def condition() -> str:
            stored = found.client.stored(Pod, "p", "default")
            return next((c.message for c in stored.status.conditions if c.type == "PodScheduled"), "")

        await found.until(lambda: condition() == message)
        created = await found.client.create(node("large"))
        created.status.MergeFrom(node(cpu="8").status)
        await found.client.update_status(created)
        await found.until(lambda: any(w.place == "backoff" for w in found.scheduler.queue.snapshot()))
        found.clock.advance(2)
        await found.until(lambda: found.node_of("p") == "large")


async def test_pods_of_other_schedulers_and_gated_pods_are_left_alone() -> None:
    gated = pod_message("gated")
    gated.spec.schedulingGates.add(name="wait")
    async with world(node("a")) as found:
        await found.client.create(pod_message("other", schedulerName="mine"))
        await found.client.create(gated)
        await found.client.create(pod_message("ours"))
        await found.until(lambda: found.node_of("ours") == "a")
        assert (found.node_of("other"), found.node_of("gated")) == ("", "")


async def test_a_refused_binding_is_tried_again() -> None:
    async with world(node("a")) as found:
        found.client.server.fail("BatchBind", Pod, ServiceUnavailable("not now"))
        await found.client.create(pod_message("p"))
        await found.until(lambda: any(w.place == "backoff" for w in found.scheduler.queue.snapshot()))
        found.clock.advance(2)
        await found.until(lambda: found.node_of("p") == "a")


async def test_room_that_a_deleted_pod_leaves_is_used() -> None:
    async with world(node("a", cpu="1")) as found:
        await found.client.create(pod_message("first", cpu="1"))
        await found.until(lambda: found.node_of("first") == "a")
        await found.client.create(pod_message("second", cpu="1"))
        await found.until(lambda: any(r == "FailedScheduling" for _, r, _ in found.events.seen))
        await found.client.delete(Pod, "first", "default", grace_period_s=0)
        await found.until(lambda: any(w.place == "backoff" for w in found.scheduler.queue.snapshot()))
        found.clock.advance(2)
        await found.until(lambda: found.node_of("second") == "a")


async def test_many_pods_never_overfill_a_node() -> None:
    nodes = [node(f"n{i}", cpu="2") for i in range(5)]
    async with world(*nodes) as found:
        for i in range(20):
            await found.client.create(pod_message(f"p{i}", cpu="500m"))
        await found.until(lambda: all(found.node_of(f"p{i}") for i in range(20)))
        counts = [found.node_of(f"p{i}") for i in range(20)]
        assert {counts.count(n.metadata.name) for n in nodes} == {4}
