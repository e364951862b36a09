"""Who a pod belongs to, and what namespaces are called, when a cluster is at work."""

from __future__ import annotations

from tests.unit.scheduler.objects import node, pod_message
from tests.unit.scheduler.world import world
from tiphys.api.apps.v1.apps_pb2 import ReplicaSet
from tiphys.api.core.v1.namespace_pb2 import Namespace
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.service_pb2 import Service

HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"


def zoned(name: str, zone: str, cpu: str = "4") -> Node:
    return node(name, cpu=cpu, labels={HOST: name, ZONE: zone})


def web(name: str, on: str = "", owner: str = "") -> Pod:
    found = pod_message(name, cpu="100m", memory="1Mi")
    found.metadata.labels["app"] = "web"
    found.spec.nodeName = on
    if owner:
        found.metadata.ownerReferences.add(kind="ReplicaSet", name=owner, controller=True)
    return found


async def test_C18_pods_of_a_service_spread_over_zones_without_saying_so() -> None:
    service = Service()
    service.metadata.name, service.metadata.namespace = "web", "default"
    service.spec.selector["app"] = "web"
    nodes = (zoned("a", "x", cpu="64"), zoned("b", "y"))
    async with world(*nodes, service, web("first", on="a")) as at_work:
        at_work.client.seed(web("second"))
        await at_work.until(lambda: bool(at_work.node_of("second")))
        assert at_work.node_of("second") == "b"


async def test_C18_pods_of_one_replica_set_spread_over_zones_without_saying_so() -> None:
    owner = ReplicaSet()
    owner.metadata.name, owner.metadata.namespace = "web-1", "default"
    owner.spec.selector.matchLabels["app"] = "web"
    nodes = (zoned("a", "x", cpu="64"), zoned("b", "y"))
    async with world(*nodes, owner, web("first", on="a", owner="web-1")) as at_work:
        at_work.client.seed(web("second", owner="web-1"))
        await at_work.until(lambda: bool(at_work.node_of("second")))
        assert at_work.node_of("second") == "b"


async def test_C17_a_namespace_that_is_labelled_later_lets_a_pod_in() -> None:
    near = Namespace()
    near.metadata.name = "near"
    partner = web("partner", on="a")
    partner.metadata.namespace = "near"
    waiting = web("waiting")
    term = waiting.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution.add(topologyKey=HOST)
    term.labelSelector.matchLabels["app"] = "web"
    term.namespaceSelector.matchLabels["team"] = "a"
    async with world(zoned("a", "x"), near, partner, waiting) as at_work:
        await at_work.until(lambda: at_work.place_of("waiting") == "unschedulable")
        await at_work.client.patch(Namespace, "near", "", {"metadata": {"labels": {"team": "a"}}}, type="strategic")
        await at_work.until(lambda: at_work.place_of("waiting") != "unschedulable")
        at_work.clock.advance(2.0)
        await at_work.until(lambda: bool(at_work.node_of("waiting")))
