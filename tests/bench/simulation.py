"""An hour of a cluster of 100 nodes and 2,000 pods with churn, on a virtual clock: what it costs."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from random import Random

from tests.bench.figures import Figure
from tiphys.api.apps.v1.apps_pb2 import Deployment
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_cluster.testing.cluster import Cluster, cluster
from tiphys_component import log
from tiphys_component.virtual_time import virtual_time

_NODES, _DEPLOYMENTS, _REPLICAS = 100, 40, 50
_HOUR_S = 3600.0


def measure_simulation() -> list[Figure]:
    """CPU of the simulated hour, in a process that has done nothing else."""
    with ProcessPoolExecutor(1, get_context("spawn"), log.configure, ("warning",)) as alone:
        took_s, writes = alone.submit(simulate).result()
    note = f"{writes} writes; {_NODES} nodes, {_DEPLOYMENTS * _REPLICAS} pods"
    return [Figure("a cluster's hour on a virtual clock", took_s, "s", 60.0, note)]


def simulate() -> tuple[float, int]:
    """CPU seconds and writes of the hour, from the moment when all pods run."""
    with virtual_time() as (runner, clock):

        async def main() -> tuple[float, int]:
            async with cluster(clock) as made:
                await _fill(made)
                began, revision = time.process_time(), await made.server.store.revision()
                await _churn(made)
                return time.process_time() - began, await made.server.store.revision() - revision

        return runner.run(main())


async def _fill(made: Cluster) -> None:
    for number in range(_NODES):
        await made.nodes.add(f"n{number}")
    for number in range(_DEPLOYMENTS):
        await made.client.create(_deployment(f"d{number}"))

    async def runs() -> bool:
        found = (await made.client.list(Deployment, "default")).items
        return all(one.status.availableReplicas == _REPLICAS for one in found)

    await made.until(runs, within_s=600)


async def _churn(made: Cluster) -> None:
    """Each minute ten pods are lost and one Deployment is rolled."""
    rng = Random("churn")
    for minute in range(int(_HOUR_S / 60)):
        pods = (await made.client.list(Pod, "default")).items
        for pod in rng.sample(pods, 10):
            await made.client.delete(Pod, pod.metadata.name, "default", absent_ok=True)
        spec = {"template": {"spec": {"containers": [{"name": "c", "image": f"v{minute}"}]}}}
        name = f"d{rng.randrange(_DEPLOYMENTS)}"
        await made.client.patch(Deployment, name, "default", {"spec": spec}, type="strategic")
        await made.clock.sleep(60)


def _deployment(name: str) -> Deployment:
    made = Deployment()
    made.metadata.name, made.metadata.namespace = name, "default"
    made.spec.replicas = _REPLICAS
    made.spec.selector.matchLabels["app"] = name
    made.spec.template.metadata.labels["app"] = name
    made.spec.template.spec.containers.add(name="c", image="v").resources.requests["cpu"].string = "100m"
    return made
