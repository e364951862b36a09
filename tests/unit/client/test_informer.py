"""The informer's copy: indexes, projections, bytes at rest."""

import asyncio
import tracemalloc
from typing import Any

import pytest

from tests.unit.client.builders import config_map, pod
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_client.client import EventType, WatchEvent
from tiphys_client.fake import FakeClient
from tiphys_client.indexer import Indexer, by_controller_uid, by_namespace, by_owner_uid
from tiphys_client.informer import Informer
from tiphys_client.shared_informers import SharedInformers
from tiphys_component.clock import FakeClock


def by_node(obj: Pod) -> list[str]:
    return [obj.spec.nodeName] if obj.spec.nodeName else []


def project(obj: Pod) -> tuple[str, str]:
    return obj.spec.nodeName, obj.status.phase


def put(indexer: Indexer[Pod, Any], obj: Pod) -> None:
    indexer.put(indexer.make(obj.SerializeToString(), obj))


def test_index_follows_an_object_as_it_moves() -> None:
    indexer: Indexer[Pod, Any] = Indexer(Pod, indexes={"node": by_node, "namespace": by_namespace})
    put(indexer, pod("p"))
    put(indexer, pod("q", node="n1"))
    assert indexer.keys_by_index("node", "n1") == ["default/q"]
    put(indexer, pod("p", node="n1"))
    assert indexer.keys_by_index("node", "n1") == ["default/q", "default/p"]
    put(indexer, pod("q", node="n2"))
    assert [obj.metadata.name for obj in indexer.by_index("node", "n1")] == ["p"]
    indexer.remove("default/p")
    assert indexer.keys_by_index("node", "n1") == []
    assert indexer.index_keys("node") == ["n2"]
    assert indexer.keys_by_index("namespace", "default") == ["default/q"]


def test_owners_are_indexed_by_uid() -> None:
    obj = pod("p")
    obj.metadata.ownerReferences.add(uid="u1", controller=True)
    obj.metadata.ownerReferences.add(uid="u2")
    assert list(by_owner_uid(obj)) == ["u1", "u2"]
    assert list(by_controller_uid(obj)) == ["u1"]


def test_unknown_index_is_an_error_and_late_ones_are_refused() -> None:
    indexer: Indexer[Pod, Any] = Indexer(Pod)
    with pytest.raises(KeyError):
        indexer.by_index("none", "x")
    put(indexer, pod("p"))
    with pytest.raises(ValueError, match="already there"):
        indexer.add_index("node", by_node)


def test_what_is_handed_out_is_the_callers_own() -> None:
    indexer: Indexer[Pod, Any] = Indexer(Pod)
    put(indexer, pod("p"))
    first = indexer.get("default/p")
    assert first is not None
    first.spec.nodeName = "changed"
    second = indexer.get("default/p")
    assert second is not None
    assert second.spec.nodeName == ""


def test_projection_of_a_newer_version_is_made_from_the_one_before() -> None:
    indexer: Indexer[Pod, list[str]] = Indexer(
        Pod, projection=lambda obj: [obj.spec.nodeName], renewal=lambda obj, known: [*known, obj.spec.nodeName]
    )
    first, other = pod("p", node="n1"), pod("p", node="n3")
    first.metadata.uid, other.metadata.uid = "1", "2"
    put(indexer, first)
    first.spec.nodeName = "n2"
    put(indexer, first)
    assert indexer.projection("default/p") == ["n1", "n2"]
    # Another object of the same name.
    put(indexer, other)
    assert indexer.projection("default/p") == ["n3"]


def test_projection_is_made_once_for_each_version() -> None:
    made: list[str] = []

    def count(obj: Pod) -> str:
        made.append(obj.metadata.name)
        return obj.spec.nodeName

    informer: Informer[Pod, str] = Informer(FakeClient(), Pod, projection=count, indexes={"node": by_node})
    obj = pod("p", node="n1")
    obj.metadata.resourceVersion = "1"
    informer.apply(WatchEvent(EventType.ADDED, obj.SerializeToString(), Pod))
    assert [informer.projection("default/p") for _ in range(3)] == ["n1"] * 3
    assert list(informer.store.projections()) == [("default/p", "n1")]
    assert informer.store.projections_by_index("node", "n1") == [("default/p", "n1")]
    assert made == ["p"]


async def test_late_handler_hears_of_what_is_there() -> None:
    clock = FakeClock()
    client = FakeClient(clock)
    client.seed(config_map("a"))
    informer: Informer[ConfigMap, Any] = Informer(client, ConfigMap, clock=clock)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(informer.run())
        await informer.wait_synced()
        heard: list[str] = []
        informer.add_handler(on_add=lambda obj: heard.append(obj.metadata.name))
        assert heard == ["a"]
        task.cancel()


async def test_handler_of_every_version_hears_of_each_without_a_parse_of_the_one_before() -> None:
    informer: Informer[Pod, object] = Informer(FakeClient(), Pod, clock=FakeClock())
    seen: list[tuple[str, str]] = []
    informer.add_handler(on_set=lambda obj: seen.append((obj.metadata.name, obj.spec.nodeName)))
    for version, node in enumerate(("", "n1", "n2"), start=1):
        obj = pod("p", node=node)
        obj.metadata.resourceVersion = str(version)
        if version == 3:
            # What is kept could not even be read.
            kept = informer.store.entry("default/p")
            assert kept is not None
            kept.raw = b"\xff"
        informer.apply(WatchEvent(EventType.MODIFIED, obj.SerializeToString(), Pod))
    assert seen == [("p", ""), ("p", "n1"), ("p", "n2")]


async def test_controllers_share_one_informer_for_one_scope() -> None:
    clock = FakeClock()
    client = FakeClient(clock)
    client.seed(pod("p", node="n1"))
    shared = SharedInformers(client, clock)
    first = shared.informer(Pod, indexes={"node": by_node})
    second = shared.informer(Pod, projection=project)
    assert first is second
    assert shared.informer(Pod, "default") is not first
    with pytest.raises(ValueError, match="another projection"):
        shared.informer(Pod, projection=lambda obj: obj)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(shared.run())
        await shared.wait_synced()
        assert shared.is_synced()
        assert first.projection("default/p") == ("n1", "Pending")
        assert first.by_index("node", "n1")[0].metadata.name == "p"
        task.cancel()


def typical_pod(number: int) -> Pod:
    """A pod of some 1.6 KB, as one of a Deployment is."""
    obj = pod(f"web-5d4f8c7b9-{number:05d}", node=f"node-{number % 100}", app="web")
    obj.metadata.resourceVersion = str(number + 1)
    obj.metadata.uid = f"7f1c2f0e-3a44-4c55-9d0a-{number:012d}"
    obj.metadata.labels["pod-template-hash"] = "5d4f8c7b9"
    obj.metadata.annotations["description"] = "x" * 600
    obj.metadata.ownerReferences.add(apiVersion="apps/v1", kind="ReplicaSet", name="web-5d4f8c7b9", uid="u" * 36)
    for name in ("Initialized", "Ready", "ContainersReady", "PodScheduled"):
        obj.status.conditions.add(type=name, status="True").lastTransitionTime.seconds = 1_700_000_000
    for index in range(4):
        obj.spec.containers[0].env.add(name=f"VARIABLE_{index}", value="some value of usual length")
    obj.status.containerStatuses.add(name="main", ready=True, image="busybox", imageID="sha256:" + "0" * 64)
    return obj


async def test_L23_a_pod_at_rest_takes_two_kilobytes() -> None:
    items = [typical_pod(number).SerializeToString() for number in range(500)]
    sizes = sum(len(raw) for raw in items)
    informer: Informer[Pod, tuple[str, str]] = Informer(
        FakeClient(), Pod, projection=project, indexes={"node": by_node}
    )
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await informer.replace([bytes(bytearray(raw)) for raw in items])
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken / len(items) < 2048
    assert (taken - sizes) / len(items) < 700
