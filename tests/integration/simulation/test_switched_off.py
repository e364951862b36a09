"""Any controller can be switched off: the rest keep their own promises."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.simulation.deeds import NAMESPACE
from tests.integration.simulation.scenario import begin, draw
from tests.integration.simulation.state import is_done
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.meta import get_controller_of
from tiphys_cluster.testing.cluster import Cluster, cluster
from tiphys_component import log
from tiphys_component.virtual_time import virtual_time

# The kind that a controller's absence leaves without pods.
LEFT_UNDONE = {"statefulset": "StatefulSet", "daemonset": "DaemonSet", "replicaset": "ReplicaSet"}
# Without these all the same is done.
NOT_MISSED = ("job", "cronjob", "garbage-collector", "endpointslice", "node-ipam", "disruption")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    log.configure("error")
    yield
    log.configure("debug")


@pytest.mark.parametrize("off", [*LEFT_UNDONE, *NOT_MISSED])
def test_M2_the_rest_goes_on_without_one(off: str) -> None:
    with virtual_time() as (runner, clock):

        async def main() -> None:
            async with cluster(clock, controllers=("*", f"-{off}-controller")) as made:
                await begin(made)
                for step in draw(1, steps=0, shapes=("deployments", "stateful", "daemons")):
                    await step.deed(made)
                left = LEFT_UNDONE.get(off, "")

                async def rest_is_done() -> bool:
                    return await is_done(made, without=left)

                await made.until(rest_is_done, within_s=300)
                assert made.failures() == []
                assert left not in await kinds_with_pods(made)
                assert len(await kinds_with_pods(made)) == 3 - bool(left)

        runner.run(main())


async def kinds_with_pods(made: Cluster) -> set[str]:
    owners = (get_controller_of(pod) for pod in (await made.client.list(Pod, NAMESPACE)).items)
    return {owner.kind for owner in owners if owner is not None}
