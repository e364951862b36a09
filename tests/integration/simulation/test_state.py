"""When a cluster counts as at rest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.simulation.deeds import NAMESPACE
from tests.integration.simulation.scenario import begin, draw
from tests.integration.simulation.state import is_done, is_settled
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_cluster.testing.cluster import MANAGER, Cluster, cluster
from tiphys_component import log
from tiphys_component.virtual_time import virtual_time


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    log.configure("error")
    yield
    log.configure("debug")


@pytest.mark.parametrize("shape", ["stateful", "daemons"])
def test_pods_that_were_lost_while_nobody_led_are_missed(shape: str) -> None:
    """Seed 266: the manager was killed three times running, and its sets said of lost pods that they were ready."""
    with virtual_time() as (runner, clock):

        async def main() -> None:
            async with cluster(clock) as made:
                await begin(made)
                for step in draw(1, steps=0, shapes=(shape,)):
                    await step.deed(made)

                async def settled() -> bool:
                    return await is_settled(made)

                await made.until(settled, within_s=300)
                await leave_the_service(made)
                await made.until(settled, within_s=300)
                lost = await lose_a_pod(made)
                assert await is_done(made)  # as far as the set knows
                assert not await is_settled(made)
                await made.until(settled, within_s=300)
                assert lost not in {pod.metadata.uid for pod in (await made.client.list(Pod, NAMESPACE)).items}

        runner.run(main())


async def leave_the_service(made: Cluster) -> None:
    """Endpoints must not give away that a pod is lost."""
    for pod in (await made.client.list(Pod, NAMESPACE)).items:
        await made.client.patch(Pod, pod.metadata.name, NAMESPACE, {"metadata": {"labels": {"part": None}}})


async def lose_a_pod(made: Cluster) -> str:
    """Kill the manager, and then a pod; its uid."""
    made.processes[MANAGER].kill()
    pod = (await made.client.list(Pod, NAMESPACE)).items[0]
    await made.client.delete(Pod, pod.metadata.name, NAMESPACE, grace_period_s=0)
    return str(pod.metadata.uid)
