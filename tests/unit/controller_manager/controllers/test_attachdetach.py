"""Volumes attached where pods need them and taken off when nobody holds them, one node at a time."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.unit.controller_manager.controllers.test_persistentvolume_binder import claim, volume
from tests.unit.controller_manager.controllers.test_storage_protection import user
from tests.unit.controller_manager.harness import House, house
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.storage.v1.storage_pb2 import CSIDriver, VolumeAttachment
from tiphys_apimachinery.persistent_volumes import BIND_COMPLETED, VolumeView, volume_view
from tiphys_controller_manager.controllers.attachdetach.plan import (
    MAX_WAIT_FOR_UNMOUNT_S,
    AttachmentView,
    NodeState,
    attachment_name,
    plan,
)

CONTROLLER = "persistentvolume-attach-detach-controller"
DRIVER = "csi.example.com"
NAME = "kubernetes.io/csi/csi.example.com^handle-vol"


def csi_volume(name: str = "vol", *modes: str) -> PersistentVolume:
    made = volume(name, modes=list(modes) or ["ReadWriteOnce"], claim="data")
    made.spec.persistentVolumeSource.ClearField("hostPath")
    made.spec.persistentVolumeSource.csi.driver = DRIVER
    made.spec.persistentVolumeSource.csi.volumeHandle = f"handle-{name}"
    return made


def view(name: str = "vol", *modes: str) -> VolumeView:
    return volume_view(csi_volume(name, *modes))


def attachment(**facts: Any) -> AttachmentView:
    values: dict[str, Any] = {
        "name": "a",
        "uid": "u",
        "driver": DRIVER,
        "volume": "vol",
        "node": "n1",
        "is_attached": True,
        "is_deleting": False,
        "error": "",
    }
    return AttachmentView(**{**values, **facts})


def state(*in_use: str, **facts: Any) -> NodeState:
    return NodeState("n1", set(in_use), **{"is_well": True, "is_off": False, **facts})


@pytest.mark.parametrize(
    ("other", "modes", "attached", "blocked"),
    [
        pytest.param({}, (), ["vol"], [], id="nowhere yet"),
        pytest.param({"vol": "n2"}, (), [], ["vol"], id="another node has it for itself"),
        pytest.param({"vol": "n2"}, ("ReadWriteMany",), ["vol"], [], id="shared"),
    ],
)
def test_a_wanted_volume_is_attached(
    other: dict[str, str], modes: tuple[str, ...], attached: list[str], blocked: list[str]
) -> None:
    found = plan(state(), {"vol": view("vol", *modes)}, [], elsewhere=other, unwanted_for_s={}, volumes={})
    assert ([item.name for item in found.attach], list(found.blocked)) == (attached, blocked)


LOST = {"is_well": False}
OFF = {"is_well": False, "is_off": True}


@pytest.mark.parametrize(
    ("node", "for_s", "goes", "again_in_s"),
    [
        pytest.param(state(), 0, True, None, id="not in use"),
        pytest.param(state(NAME), 10_000, False, None, id="in use on a well node"),
        pytest.param(state(NAME, **LOST), 60, False, 300.0, id="in use on a lost node"),
        pytest.param(state(NAME, **LOST), MAX_WAIT_FOR_UNMOUNT_S, True, None, id="lost for too long"),
        pytest.param(state(NAME, **OFF), 0, True, None, id="out of service"),
    ],
)
def test_an_unwanted_volume_goes_when_nobody_writes_to_it(
    node: NodeState, for_s: float, goes: bool, again_in_s: float | None
) -> None:
    found = plan(node, {}, [attachment()], elsewhere={}, unwanted_for_s={"a": for_s}, volumes={"vol": view()})
    assert (bool(found.detach), found.again_in_s) == (goes, again_in_s)
    # What is to go may not be mounted any more.
    assert found.attached == (() if goes else (NAME,))


def test_only_what_is_attached_and_stays_may_be_mounted() -> None:
    wanted = {"vol": view()}
    for facts, expected in (({}, (NAME,)), ({"is_attached": False}, ()), ({"is_deleting": True}, ())):
        has = [attachment(**facts)]
        found = plan(state(), wanted, has, elsewhere={}, unwanted_for_s={}, volumes=wanted)
        assert found.attached == expected


def test_an_attachment_is_named_as_every_driver_expects() -> None:
    digest = hashlib.sha256(b"handle-volcsi.example.comn1").hexdigest()
    assert attachment_name("handle-vol", DRIVER, "n1") == f"csi-{digest}"


def node(name: str = "n1") -> Node:
    made = Node()
    made.metadata.name = name
    return made


async def stored_claim(built: House) -> None:
    made = claim(volumeName="vol")
    made.metadata.annotations[BIND_COMPLETED] = "yes"
    await built.client.create(made)


async def ready_node(built: House, name: str = "n1") -> None:
    made = await built.client.create(node(name))
    made.status.conditions.add(type="Ready", status="True")
    await built.client.update_status(made)


async def in_use(built: House, *names: str) -> None:
    stored = await built.client.get(Node, "n1")
    stored.status.ClearField("volumesInUse")
    stored.status.volumesInUse.extend(names)
    await built.client.update_status(stored)
    await built.settle()


async def attach_all(built: House) -> list[Any]:
    """Do a driver's work."""
    found = await built.all(VolumeAttachment)
    for item in found:
        item.status.attached = True
        await built.client.update_status(item)
    await built.settle()
    return found


async def started(built: House) -> None:
    await ready_node(built)
    await built.client.create(csi_volume())
    await stored_claim(built)
    await built.client.create(user())
    await built.settle()


async def test_a_volume_is_attached_for_a_pod_and_taken_off_after_it() -> None:
    async with house(CONTROLLER) as built:
        await started(built)
        made = await attach_all(built)
        assert [(item.spec.attacher, item.spec.nodeName) for item in made] == [(DRIVER, "n1")]
        assert made[0].metadata.name == attachment_name("handle-vol", DRIVER, "n1")
        assert [item.name for item in (await built.client.get(Node, "n1")).status.volumesAttached] == [NAME]
        assert "SuccessfulAttachVolume" in built.events.reasons()
        await in_use(built, NAME)
        await built.client.delete(Pod, "p", "default", grace_period_s=0)
        await built.settle()
        assert len(await built.all(VolumeAttachment)) == 1
        await in_use(built)
        assert await built.all(VolumeAttachment) == []
        assert not (await built.client.get(Node, "n1")).status.volumesAttached


async def test_a_driver_that_attaches_nothing_is_left_alone() -> None:
    async with house(CONTROLLER) as built:
        driver = CSIDriver()
        driver.metadata.name = DRIVER
        driver.spec.attachRequired = False
        await built.client.create(driver)
        await started(built)
        assert await built.all(VolumeAttachment) == []


async def test_a_claim_that_is_bound_later_is_noticed() -> None:
    async with house(CONTROLLER) as built:
        await ready_node(built)
        await built.client.create(csi_volume())
        made = await built.client.create(claim())
        await built.client.create(user())
        await built.settle()
        assert await built.all(VolumeAttachment) == []
        made.spec.volumeName = "vol"
        made.metadata.annotations[BIND_COMPLETED] = "yes"
        await built.client.update(made)
        await built.settle()
        assert len(await built.all(VolumeAttachment)) == 1


async def test_a_node_that_is_gone_loses_its_volumes_after_a_while() -> None:
    async with house(CONTROLLER) as built:
        await started(built)
        await attach_all(built)
        await in_use(built, NAME)
        await built.client.delete(Node, "n1")
        await built.client.delete(Pod, "p", "default", grace_period_s=0)
        await built.run_for(MAX_WAIT_FOR_UNMOUNT_S - 10)
        assert len(await built.all(VolumeAttachment)) == 1
        await built.run_for(70)
        assert await built.all(VolumeAttachment) == []


async def test_a_second_node_waits_for_the_first_and_says_so() -> None:
    async with house(CONTROLLER) as built:
        await started(built)
        await attach_all(built)
        await ready_node(built, "n2")
        second = user(node="n2")
        second.metadata.name = "q"
        await built.client.create(second)
        await built.settle()
        assert {item.spec.nodeName for item in await built.all(VolumeAttachment)} == {"n1"}
        assert "FailedAttachVolume" in built.events.reasons()
        await built.client.delete(Pod, "p", "default", grace_period_s=0)
        await built.settle()
        assert {item.spec.nodeName for item in await built.all(VolumeAttachment)} == {"n2"}


async def test_a_fault_of_the_driver_is_told_once() -> None:
    async with house(CONTROLLER) as built:
        await started(built)
        item = (await built.all(VolumeAttachment))[0]
        item.status.attachError.message = "no such disk"
        await built.client.update_status(item)
        await built.settle()
        await in_use(built, NAME)
        text = 'AttachVolume.Attach failed for volume "vol" : no such disk'
        assert built.events.seen.count(("Warning", "FailedAttachVolume", text)) == 1
