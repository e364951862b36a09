"""DaemonSets against the real API server, with no scheduler: each pod says for which node it is made."""

from __future__ import annotations

from contextlib import suppress

from tests.integration.controller_manager.conftest import Cluster
from tests.integration.controller_manager.test_controllers import has, listed
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import node_pb2, pod_pb2, service_account_pb2
from tiphys_apimachinery.errors import Conflict, NotFound
from tiphys_controller_manager.pods import pod_view

DaemonSet = apps_pb2.DaemonSet


def daemon_set() -> DaemonSet:
    made = DaemonSet()
    made.metadata.name, made.metadata.namespace = "agent", "default"
    made.spec.selector.matchLabels["app"] = "agent"
    made.spec.template.metadata.labels["app"] = "agent"
    made.spec.template.spec.containers.add(name="c", image="busybox:1")
    return made


async def create_nodes(cluster: Cluster, *names: str) -> None:
    for name in names:
        made = node_pb2.Node()
        made.metadata.name = name
        made.status.conditions.add(type="Ready", status="True")
        await cluster.client.create(made)


async def test_B15_a_pod_for_each_node_updates_and_goes_with_its_set(cluster: Cluster) -> None:
    await cluster.until(lambda: has(cluster, service_account_pb2.ServiceAccount, "default", "default"))
    made = daemon_set()
    # Nobody beats for these nodes, so they are not ready.
    made.spec.template.spec.tolerations.add(operator="Exists")
    await cluster.client.create(made)
    await create_nodes(cluster, "n1", "n2")

    async def runs(image: str, *nodes: str) -> bool:
        with suppress(NotFound, Conflict):
            await cluster.run_pods()
        pods = [pod for pod in await listed(cluster, pod_pb2.Pod) if not pod_view(pod).is_deleting]
        status = (await cluster.client.get(DaemonSet, "agent", "default")).status
        places = sorted(pod_view(pod).pinned_to for pod in pods)
        images = {pod.spec.containers[0].image for pod in pods}
        counts = {status.desiredNumberScheduled, status.updatedNumberScheduled, status.numberAvailable}
        return places == list(nodes) and images == {image} and counts == {len(nodes)}

    await cluster.until(lambda: runs("busybox:1", "n1", "n2"))
    await create_nodes(cluster, "n3")
    await cluster.until(lambda: runs("busybox:1", "n1", "n2", "n3"))
    stored = await cluster.client.get(DaemonSet, "agent", "default")
    stored.spec.template.spec.containers[0].image = "busybox:2"
    await cluster.client.update(stored)
    await cluster.until(lambda: runs("busybox:2", "n1", "n2", "n3"))
    revisions = await listed(cluster, apps_pb2.ControllerRevision)
    assert sorted(item.revision for item in revisions) == [1, 2]
    await cluster.client.delete(DaemonSet, "agent", "default", propagation="Background")

    async def is_gone() -> bool:
        await cluster.run_pods()
        return not await listed(cluster, pod_pb2.Pod) and not await listed(cluster, apps_pb2.ControllerRevision)

    await cluster.until(is_gone)
