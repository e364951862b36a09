"""DaemonSets on a server in memory: pods by nodes, updates, history, and what was adopted."""

from __future__ import annotations

from typing import Any

from tests.unit.controller_manager.controllers.test_daemonset_plan import CONTROLLER, chooses, daemon_set
from tests.unit.controller_manager.controllers.test_nodes import node
from tests.unit.controller_manager.harness import House, house, names
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import node_pb2, pod_pb2
from tiphys_apimachinery.errors import Forbidden
from tiphys_controller_manager.controllers.daemonset.placement import HASH_LABEL
from tiphys_controller_manager.pods import pod_view
from tiphys_controller_manager.revisions import template_of

DaemonSet = apps_pb2.DaemonSet
ControllerRevision = apps_pb2.ControllerRevision
Pod = pod_pb2.Pod
Node = node_pb2.Node


async def of_nodes(h: House, *of: str) -> None:
    for name in of:
        await h.client.create(node(name))
    await h.settle()


async def run_all(h: House, rounds: int = 6) -> None:
    for _ in range(rounds):
        await h.run_pods()
        await h.settle()


async def where(h: House) -> list[str]:
    return sorted(pod_view(item).pinned_to for item in await h.pods())


def status(h: House) -> Any:
    return h.client.stored(DaemonSet, "agent", "default").status


async def change(h: House, edit: Any) -> None:
    stored = h.client.stored(DaemonSet, "agent", "default")
    edit(stored)
    await h.client.update(stored)
    await h.settle()


def image(name: str) -> Any:
    return lambda stored: setattr(stored.spec.template.spec.containers[0], "image", name)


async def images(h: House) -> set[str]:
    return {item.spec.containers[0].image for item in await h.pods()}


async def test_B15_each_node_gets_a_pod_and_a_new_node_at_once() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1", "n2")
        await h.client.create(daemon_set())
        await run_all(h)
        assert await where(h) == ["n1", "n2"]
        assert (status(h).desiredNumberScheduled, status(h).numberAvailable) == (2, 2)
        await of_nodes(h, "n3")
        assert await where(h) == ["n1", "n2", "n3"]
        assert h.events.reasons() == ["SuccessfulCreate"] * 3


async def test_B15_pods_follow_the_labels_of_nodes() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1", "n2")
        await h.client.create(chooses(color="blue"))
        await h.settle()
        assert await where(h) == []
        await label(h, "n1", color="blue")
        assert await where(h) == ["n1"]
        await label(h, "n1", color="green")
        await run_all(h)
        assert await where(h) == []
        await change(h, lambda stored: stored.spec.template.spec.nodeSelector.update(color="green"))
        assert await where(h) == ["n1"]


async def label(h: House, name: str, **labels: str) -> None:
    stored = h.client.stored(Node, name)
    stored.metadata.labels.update(labels)
    await h.client.update(stored)
    await h.settle()


async def test_B15_a_heartbeat_of_a_node_is_no_work() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1")
        await h.client.create(daemon_set())
        await run_all(h)
        before = h.loops[CONTROLLER].report.reconciles
        stored = h.client.stored(Node, "n1")
        stored.status.conditions.add(type="Ready", status="True").lastHeartbeatTime.seconds = 7
        await h.client.update_status(stored)
        await h.settle()
        assert h.loops[CONTROLLER].report.reconciles == before


async def test_B15_a_pod_that_never_reached_its_lost_node_goes() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1", "n2")
        await h.client.create(daemon_set())
        await h.settle()
        await h.client.delete(Node, "n2")
        await h.settle()
        assert await where(h) == ["n1"]
        assert status(h).desiredNumberScheduled == 1


async def test_B15_a_failed_pod_is_made_again_with_a_longer_wait_each_time() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1")
        await h.client.create(daemon_set())
        await h.settle()
        first = await fail(h)
        assert (await h.pods())[0].metadata.uid != first
        second = await fail(h)
        assert [item.metadata.uid for item in await h.pods()] == [second]
        await h.run_for(1.1)
        assert (await h.pods())[0].metadata.uid != second
        assert h.events.reasons().count("FailedDaemonPod") == 2


async def fail(h: House) -> str:
    pod = (await h.pods())[0]
    pod.status.phase = "Failed"
    await h.client.update_status(pod)
    await h.settle()
    return str(pod.metadata.uid)


async def test_B15_an_update_replaces_one_pod_after_another() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1", "n2", "n3")
        await h.client.create(daemon_set(maxUnavailable=1))
        await run_all(h)
        await change(h, image("busybox:2"))
        for _ in range(12):
            ready = [item for item in await h.pods() if pod_view(item).is_ready and not pod_view(item).is_deleting]
            assert len(ready) >= 2
            await h.run_pods()
            await h.settle()
        assert await images(h) == {"busybox:2"}
        assert (status(h).updatedNumberScheduled, status(h).numberUnavailable) == (3, 0)


async def test_B15_an_update_with_surge_loses_no_pod() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1", "n2")
        await h.client.create(daemon_set(maxUnavailable=0, maxSurge=1))
        await run_all(h)
        await change(h, image("busybox:2"))
        for _ in range(12):
            live = [pod_view(item) for item in await h.pods() if not pod_view(item).is_deleting]
            assert len({item.pinned_to for item in live if item.is_ready}) == 2
            assert len(live) <= 3
            await h.run_pods()
            await h.settle()
        assert await images(h) == {"busybox:2"}
        assert await where(h) == ["n1", "n2"]


async def test_B15_OnDelete_waits_for_a_hand() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1", "n2")
        await h.client.create(daemon_set(type="OnDelete"))
        await run_all(h)
        await change(h, image("busybox:2"))
        await run_all(h)
        assert await images(h) == {"busybox:1"}
        victim = (await h.pods())[0].metadata.name
        await h.client.delete(Pod, victim, "default", grace_period_s=0)
        await h.settle()
        assert await images(h) == {"busybox:1", "busybox:2"}
        assert status(h).updatedNumberScheduled == 1


async def test_B34_going_back_moves_the_old_revision_to_the_front_and_restarts_nothing_that_is_old() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1", "n2")
        await h.client.create(daemon_set())
        await run_all(h)
        first = {item.metadata.uid for item in await h.pods()}
        await change(h, image("busybox:2"))
        # One pod is away for the update, and nobody makes the new one run: the other still has the old template.
        kept = {item.metadata.uid for item in await h.pods() if not pod_view(item).is_deleting} & first
        assert len(kept) == 1
        await change(h, image("busybox:1"))
        await run_all(h, 12)
        assert await images(h) == {"busybox:1"}
        assert kept <= {item.metadata.uid for item in await h.pods()}
        revisions = await h.all(ControllerRevision, "default")
        assert sorted(item.revision for item in revisions) == [2, 3]
        newest = max(revisions, key=lambda item: item.revision)
        assert newest.metadata.labels[HASH_LABEL] == (await h.pods())[0].metadata.labels[HASH_LABEL]
        assert newest.metadata.name == f"agent-{newest.metadata.labels[HASH_LABEL]}"
        assert template_of(newest).spec.containers[0].image == "busybox:1"


async def test_B34_revisions_beyond_the_limit_go() -> None:
    made = daemon_set()
    made.spec.revisionHistoryLimit = 1
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1")
        await h.client.create(made)
        for number in range(2, 6):
            await run_all(h, 4)
            await change(h, image(f"busybox:{number}"))
        await run_all(h, 4)
        assert sorted(item.revision for item in await h.all(ControllerRevision, "default")) == [4, 5]


async def test_B34_a_revision_of_that_name_with_another_content_makes_another_name() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1")
        await h.client.create(daemon_set())
        await run_all(h)
        taken = (await h.all(ControllerRevision, "default"))[0]
        await h.client.delete(DaemonSet, "agent", "default")
        await h.settle()
        stolen = ControllerRevision()
        stolen.CopyFrom(taken)
        stolen.metadata.ClearField("ownerReferences")
        stolen.metadata.labels["app"] = "other"
        stolen.metadata.resourceVersion = ""
        await h.client.delete(ControllerRevision, taken.metadata.name, "default")
        await h.client.create(stolen)
        await h.client.create(daemon_set())
        await h.settle()
        assert status(h).collisionCount == 1
        assert len(names(await h.all(ControllerRevision, "default"))) == 2


async def test_B15_an_orphan_of_its_labels_is_adopted_and_a_changed_one_released() -> None:
    orphan = Pod()
    orphan.metadata.name, orphan.metadata.namespace = "stray", "default"
    orphan.metadata.labels["app"] = "agent"
    orphan.spec.nodeName = "n1"
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1")
        await h.client.create(orphan)
        made = daemon_set(type="OnDelete")
        await h.client.create(made)
        await h.settle()
        assert names(await h.pods()) == ["stray"]
        adopted = (await h.pods())[0]
        assert adopted.metadata.ownerReferences[0].name == "agent"
        adopted.metadata.labels["app"] = "other"
        await h.client.update(adopted)
        await h.settle()
        pods = {item.metadata.name: item for item in await h.pods()}
        assert len(pods) == 2
        assert not pods["stray"].metadata.ownerReferences


async def test_a_refused_pod_is_told_of_and_tried_again() -> None:
    async with house(CONTROLLER) as h:
        h.client.server.fail("BatchCreate", Pod, Forbidden("over quota"))
        await of_nodes(h, "n1")
        await h.client.create(daemon_set())
        await h.run_for(5)
        assert "FailedCreate" in h.events.reasons()
        assert await where(h) == ["n1"]


async def test_minReadySeconds_is_waited_for_without_an_event() -> None:
    made = daemon_set()
    made.spec.minReadySeconds = 30
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1")
        await h.client.create(made)
        await run_all(h)
        assert (status(h).numberReady, status(h).numberAvailable) == (1, 0)
        await h.run_for(31)
        assert status(h).numberAvailable == 1


async def test_a_set_that_ends_makes_nothing() -> None:
    made = daemon_set()
    made.metadata.finalizers.append("foregroundDeletion")
    async with house(CONTROLLER) as h:
        await h.client.create(made)
        await h.settle()
        await h.client.delete(DaemonSet, "agent", "default")
        await of_nodes(h, "n1")
        assert await h.pods() == []
