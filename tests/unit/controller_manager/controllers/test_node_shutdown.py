"""A node without power: once somebody says that it is off, its pods and volumes move on."""

from __future__ import annotations

from tests.unit.controller_manager.controllers.test_attachdetach import (
    CONTROLLER,
    NAME,
    attach_all,
    csi_volume,
    in_use,
    ready_node,
    stored_claim,
)
from tests.unit.controller_manager.controllers.test_statefulset import stateful_set
from tests.unit.controller_manager.harness import House, house
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.storage.v1.storage_pb2 import VolumeAttachment

CONTROLLERS = (
    CONTROLLER,
    "statefulset-controller",
    "taint-eviction-controller",
    "pod-garbage-collector-controller",
)
OFF = "node.kubernetes.io/out-of-service"


async def bind(h: House, node: str) -> None:
    """Do the scheduler's and the kubelet's work."""
    stored = h.client.stored(Pod, "web-0", "default")
    stored.spec.nodeName = node
    await h.make_ready(await h.client.update(stored))
    await h.settle()


async def running_on_n1(h: House) -> str:
    """A pod of a StatefulSet with a volume on n1; its uid."""
    await ready_node(h, "n1")
    await ready_node(h, "n2")
    await h.client.create(csi_volume())
    await stored_claim(h)
    made = stateful_set(1)
    made.spec.template.spec.volumes.add(name="v").volumeSource.persistentVolumeClaim.claimName = "data"
    await h.client.create(made)
    await h.settle()
    await bind(h, "n1")
    await attach_all(h)
    await in_use(h, NAME)
    return str(h.client.stored(Pod, "web-0", "default").metadata.uid)


async def lose_power(h: House) -> None:
    stored = h.client.stored(Node, "n1")
    stored.status.conditions[0].status = "Unknown"
    await h.client.update_status(stored)


async def say_off(h: House, effect: str = "NoExecute") -> None:
    stored = h.client.stored(Node, "n1")
    stored.spec.taints.add(key=OFF, value="nodeshutdown", effect=effect)
    await h.client.update(stored)
    await h.settle()


async def attached_to(h: House) -> list[str]:
    return [item.spec.nodeName for item in await h.all(VolumeAttachment)]


async def test_B39_a_pod_with_its_volume_runs_elsewhere_at_once_when_its_node_is_said_to_be_off() -> None:
    async with house(*CONTROLLERS) as h:
        before = await running_on_n1(h)
        await lose_power(h)
        await h.run_for(60)
        assert h.client.stored(Pod, "web-0", "default").metadata.uid == before
        assert await attached_to(h) == ["n1"]

        await say_off(h)
        await h.run_for(5)
        after = h.client.stored(Pod, "web-0", "default")
        assert after.metadata.uid != before
        assert await attached_to(h) == []
        await bind(h, "n2")
        assert await attached_to(h) == ["n2"]


async def test_B39_a_pod_that_was_to_end_already_ends_with_any_effect_of_the_taint() -> None:
    async with house(*CONTROLLERS) as h:
        before = await running_on_n1(h)
        await lose_power(h)
        await h.client.delete(Pod, "web-0", "default", grace_period_s=30)
        await h.run_for(60)
        assert h.client.stored(Pod, "web-0", "default").metadata.uid == before
        await say_off(h, "NoSchedule")
        await h.run_for(2)
        assert h.client.stored(Pod, "web-0", "default").metadata.uid != before


async def test_B39_a_forgotten_taint_on_a_node_that_works_ends_no_pod() -> None:
    async with house(*CONTROLLERS) as h:
        before = await running_on_n1(h)
        await say_off(h, "NoSchedule")
        await h.client.delete(Pod, "web-0", "default", grace_period_s=30)
        await h.run_for(60)
        assert h.client.stored(Pod, "web-0", "default").metadata.uid == before
