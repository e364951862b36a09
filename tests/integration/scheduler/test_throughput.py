"""The workloads of the benchmark in small, through a real API server: the counts are right and nothing is overfull."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from tests.bench.road import Road
from tests.bench.road_workloads import ROAD, RoadWorkload
from tests.integration.controller_manager.conftest import config_of, issue
from tests.integration.scheduler.test_binding import USER, scheduler
from tests.support.apiserver import running_server
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_client.client import Client
from tiphys_client.transport import GrpcTransport
from tiphys_scheduler.pod_info import amount

_PATIENCE_S = 120.0
_NODES, _BEFORE, _PODS = 12, 4, 10
# Four of those before fill a node, and each that is measured needs the room of three.
_SIZES = {"Preemption": (5, 20, 5), "NSSelector": (20, 4, 10), "PodAntiAffinity": (20, 4, 10)}


def small(work: RoadWorkload) -> RoadWorkload:
    nodes, before, count = _SIZES.get(work.name, (_NODES, _BEFORE, _PODS))
    return work.sized(nodes, before, count)


async def overfull(client: Client) -> list[str]:
    """Nodes with more on them than they have."""
    used: dict[str, Counter[str]] = defaultdict(Counter)
    for pod in (await client.list(Pod)).items:
        if pod.spec.nodeName:
            used[pod.spec.nodeName]["pods"] += 1
            for container in pod.spec.containers:
                for resource, quantity in container.resources.requests.items():
                    used[pod.spec.nodeName][resource] += amount(resource, quantity.string)
    return [
        f"{node.metadata.name}: {resource}"
        for node in (await client.list(Node)).items
        for resource, quantity in node.status.allocatable.items()
        if used[node.metadata.name][resource] > amount(resource, quantity.string)
    ]


@pytest.mark.parametrize("work", ROAD, ids=lambda work: work.name.replace(" ", "-"))
async def test_C30_every_pod_of_a_workload_is_bound_and_told_of_and_no_node_is_overfull(work: RoadWorkload) -> None:
    async with running_server(disable_admission_plugins=("TaintNodesByCondition",)) as server:
        issue(server, USER)
        client = Client(GrpcTransport(config_of(server, "admin")))
        try:
            road = Road(client, small(work))
            await road.prepare()
            async with road.watched() as progress, scheduler(server):
                await road.wait_done(progress, _PATIENCE_S)
            assert len(road.measured) == small(work).count
            assert road.measured <= progress.bound.keys()
            assert progress.moved == []
            assert await overfull(client) == []
        finally:
            await client.close()
