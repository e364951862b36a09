"""Views that are half a minute old: no controller makes anything twice, and all come to where they should."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.controller_manager.controllers.jobs import JOB, job, submit
from tests.unit.controller_manager.controllers.test_daemonset_plan import daemon_set
from tests.unit.controller_manager.controllers.test_deployment import deployment
from tests.unit.controller_manager.controllers.test_nodes import node
from tests.unit.controller_manager.controllers.test_replicaset import replica_set
from tests.unit.controller_manager.controllers.test_statefulset import stateful_set
from tests.unit.controller_manager.harness import House, house
from tests.unit.controller_manager.lagging import LaggingClient
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import node_pb2, pod_pb2
from tiphys_controller_manager.pods import pod_view

LAG_S = 30.0


def parallel(replicas: int) -> apps_pb2.StatefulSet:
    made = stateful_set(replicas)
    made.spec.podManagementPolicy = "Parallel"
    return made


async def create(h: House, made: Any) -> None:
    if made.DESCRIPTOR.name == "Job":
        await submit(h, made)
    else:
        await h.client.create(made)


async def most_active(h: House, seconds: int) -> int:
    """The most active pods that there were, while controllers are made to look again and again at what they see."""
    most = 0
    for _ in range(seconds // 10):
        for made in await h.all(apps_pb2.ReplicaSet, "default"):
            for loop in h.loops.values():
                loop.trigger(f"default/{made.metadata.name}")
        for loop in h.loops.values():
            for name in ("web", "agent", "pi"):
                loop.trigger(f"default/{name}")
        await h.run_for(10)
        most = max(most, sum(pod_view(pod).is_active for pod in await h.pods()))
    return most


OWNERS = [
    pytest.param(("replicaset-controller",), lambda: replica_set(replicas=3), id="ReplicaSet"),
    pytest.param(("deployment-controller", "replicaset-controller"), lambda: deployment(replicas=3), id="Deployment"),
    pytest.param(("statefulset-controller",), lambda: parallel(3), id="StatefulSet"),
    pytest.param(("daemonset-controller",), daemon_set, id="DaemonSet"),
    pytest.param((JOB,), lambda: job(parallelism=3, completions=3), id="Job"),
]


@pytest.mark.parametrize(("names", "make"), OWNERS)
async def test_B37_views_that_lag_by_half_a_minute_make_no_pod_twice(
    names: tuple[str, ...], make: Callable[[], Any]
) -> None:
    client = LaggingClient()
    async with house(*names, client=client) as h:
        for number in range(3):
            await h.client.create(node(f"n{number}"))
        client.lag(h.clock, LAG_S)
        await create(h, make())
        assert await most_active(h, 100) == 3
        victim = (await h.pods())[0]
        await h.client.delete(pod_pb2.Pod, victim.metadata.name, "default", grace_period_s=0)
        assert await most_active(h, 100) == 3
        assert sum(pod_view(pod).is_active for pod in await h.pods()) == 3


async def test_B37_a_rollout_seen_late_keeps_within_its_bounds() -> None:
    client = LaggingClient()
    async with house("deployment-controller", "replicaset-controller", client=client) as h:
        await h.client.create(deployment(replicas=4))
        for _ in range(4):
            await h.run_pods()
            await h.settle()
        client.lag(h.clock, LAG_S)
        stored = h.client.stored(apps_pb2.Deployment, "web", "default")
        stored.spec.template.spec.containers[0].image = "busybox:2"
        await h.client.update(stored)
        images: set[str] = set()
        for _ in range(100):
            await h.run_for(10)
            await h.run_pods()
            live = [pod for pod in await h.pods() if pod_view(pod).is_active]
            # 25 % of four, both ways.
            assert len(live) <= 5
            assert sum(pod_view(pod).is_ready for pod in live) >= 3
            images = {pod.spec.containers[0].image for pod in live}
            if images == {"busybox:2"}:
                break
        assert images == {"busybox:2"}


async def test_B37_a_node_whose_range_is_not_seen_yet_is_given_no_second_one() -> None:
    client = LaggingClient()
    async with house("node-ipam-controller", client=client, cluster_cidr=("10.244.0.0/16",)) as h:
        client.lag(h.clock, LAG_S)
        await h.client.create(node("n1"))
        await h.run_for(LAG_S + 1)
        given = h.client.stored(node_pb2.Node, "n1").spec.podCIDR
        h.loops["node-ipam-controller"].trigger("n1")
        await h.run_for(2 * LAG_S)
        assert given
        assert h.client.stored(node_pb2.Node, "n1").spec.podCIDR == given
        assert h.loops["node-ipam-controller"].report.failures == 0
