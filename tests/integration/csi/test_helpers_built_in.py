"""Attach, resize and copy by the companion alone, and drivers that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.integration.csi.conftest import Claim, Storage
from tiphys.api.storage.v1 import storage_pb2
from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_csi.companion.provisioning import CLAIM_FINALIZER
from tiphys_csi.hostpath.controller import AttachingController, HostPathController
from tiphys_csi.hostpath.state import id_for
from tiphys_sdk.csi.driver import Driver
from tiphys_sdk.csi.status import internal

VolumeAttachment = storage_pb2.VolumeAttachment


async def _attachment(storage: Storage, name: str, wanted: Callable[[VolumeAttachment], Any]) -> VolumeAttachment:
    async def ask() -> VolumeAttachment | None:
        found = await storage.client.get(VolumeAttachment, name)
        return found if wanted(found) else None

    found: VolumeAttachment = await storage.until(ask)
    return found


async def _no_attachments(storage: Storage) -> bool:
    return not (await storage.client.list(VolumeAttachment)).items


async def _grow(storage: Storage, name: str, size: str) -> None:
    change = {"spec": {"resources": {"requests": {"storage": size}}}}
    await storage.client.patch(Claim, name, "default", change)


async def test_E27_driver_without_sidecars_is_provisioned_attached_and_resized(storage: Storage) -> None:
    node = storage.node("n1", attach=True)
    node.start_driver()
    node.start_companion()
    await storage.add_class()
    await storage.add_claim("data")
    volume = await storage.bound("data")
    handle = volume.spec.persistentVolumeSource.csi.volumeHandle

    made = await storage.attachment(volume.metadata.name, "n1")
    attached = await _attachment(storage, made.metadata.name, lambda found: found.status.attached)
    assert dict(attached.status.attachmentMetadata) == {"attached-to": "n1"}
    assert list(attached.metadata.finalizers) == ["external-attacher/hostpath-csi-tiphys-dev"]

    await _grow(storage, "data", "2Gi")

    async def node_is_asked() -> bool:
        claim = await storage.claim("data")
        return claim is not None and [one.type for one in claim.status.conditions] == ["FileSystemResizePending"]

    await storage.until(node_is_asked)
    volume = await storage.bound("data")
    assert volume.spec.capacity["storage"].string == "2Gi"

    await storage.client.delete(Claim, "data", "default")
    # The volume stays while it is attached.
    await asyncio.sleep(0.2)
    assert node.volumes() == [handle]
    await storage.client.delete(VolumeAttachment, made.metadata.name)
    await storage.until(lambda: _no_attachments(storage))

    async def gone() -> bool:
        return not node.volumes() and not await storage.volumes()

    await storage.until(gone)


async def test_driver_that_does_not_attach_is_said_to_be_attached(storage: Storage) -> None:
    node = storage.node("n1")
    node.start_driver()
    node.start_companion()
    await storage.add_class()
    await storage.add_claim("data")
    volume = await storage.bound("data")
    made = await storage.attachment(volume.metadata.name, "n1")
    await _attachment(storage, made.metadata.name, lambda found: found.status.attached)


async def test_attachment_of_a_missing_volume_says_so_and_heals(storage: Storage) -> None:
    node = storage.node("n1", attach=True)
    node.start_driver()
    node.start_companion()
    made = await storage.attachment("pv-later", "n1")
    failed = await _attachment(storage, made.metadata.name, lambda found: found.status.HasField("attachError"))
    assert "does not exist" in failed.status.attachError.message
    await storage.client.delete(VolumeAttachment, made.metadata.name)
    await storage.until(lambda: _no_attachments(storage))


async def test_claim_is_copied_from_another(storage: Storage) -> None:
    node = storage.node("n1")
    node.start_driver()
    node.start_companion()
    await storage.add_class()
    await storage.add_claim("original")
    original = await storage.bound("original")
    handle = original.spec.persistentVolumeSource.csi.volumeHandle
    (node.state / "volumes" / handle / "data" / "file").write_text("kept")
    copy = Claim()
    copy.metadata.name, copy.metadata.namespace = "copy", "default"
    copy.spec.accessModes.append("ReadWriteOnce")
    copy.spec.storageClassName = "fast"
    copy.spec.resources.requests["storage"].string = "1Gi"
    copy.spec.dataSource.kind, copy.spec.dataSource.name = "PersistentVolumeClaim", "original"
    await storage.client.create(copy)
    made = (await storage.bound("copy")).spec.persistentVolumeSource.csi.volumeHandle
    assert (node.state / "volumes" / made / "data" / "file").read_text() == "kept"


class Hangs(HostPathController):
    """Answers no CreateVolume until it is let go."""

    released = asyncio.Event()

    async def CreateVolume(self, request: csi_pb2.CreateVolumeRequest) -> csi_pb2.CreateVolumeResponse:
        await self.released.wait()
        return await super().CreateVolume(request)


class LosesAnswers(HostPathController):
    """Does the work, and fails to say so the first time."""

    async def CreateVolume(self, request: csi_pb2.CreateVolumeRequest) -> csi_pb2.CreateVolumeResponse:
        known = self._store.volume(id_for(request.name))
        reply = await super().CreateVolume(request)
        if known is None:
            raise internal("the answer was lost")
        return reply


class RefusesToDetach(AttachingController):
    """Detaches at the third try."""

    tries = 0

    async def ControllerUnpublishVolume(
        self, request: csi_pb2.ControllerUnpublishVolumeRequest
    ) -> csi_pb2.ControllerUnpublishVolumeResponse:
        self.tries += 1
        if self.tries < 3:
            raise internal("the disk is stuck")
        return await super().ControllerUnpublishVolume(request)


def with_controller(make: type[HostPathController]) -> Callable[[Driver], Driver]:
    def change(driver: Driver) -> Driver:
        known: Any = driver.controller
        return replace(driver, controller=make(known._store, known._node_id, known._limits, known._clock))

    return change


async def test_driver_that_hangs_is_told_of_and_asked_again(storage: Storage) -> None:
    Hangs.released = asyncio.Event()
    node = storage.node("n1", change=with_controller(Hangs))
    node.start_driver()
    node.start_companion(timeout_s=0.2)
    await storage.add_class()
    await storage.add_claim("data")

    async def told() -> bool:
        return "ProvisioningFailed" in await storage.events("data")

    await storage.until(told)
    Hangs.released.set()
    await storage.bound("data")
    assert len(node.volumes()) == 1


async def test_claim_deleted_while_its_driver_hangs_leaves_no_volume(storage: Storage) -> None:
    Hangs.released = asyncio.Event()
    node = storage.node("n1", change=with_controller(Hangs))
    node.start_driver()
    node.start_companion(timeout_s=0.2)
    await storage.add_class()
    await storage.add_claim("data")

    async def begun() -> bool:
        claim = await storage.claim("data")
        return claim is not None and CLAIM_FINALIZER in claim.metadata.finalizers

    await storage.until(begun)
    await storage.client.delete(Claim, "data", "default")
    await node.kill("companion")
    Hangs.released.set()
    node.start_companion()

    async def gone() -> bool:
        return await storage.claim("data") is None

    await storage.until(gone)
    assert node.volumes() == []
    assert await storage.volumes() == []


async def test_driver_whose_answer_was_lost_makes_one_volume(storage: Storage) -> None:
    node = storage.node("n1", change=with_controller(LosesAnswers))
    node.start_driver()
    node.start_companion()
    await storage.add_class()
    await storage.add_claim("data")
    await storage.bound("data")
    assert len(node.volumes()) == 1


async def test_error_of_detaching_stands_in_the_status_until_it_works(storage: Storage) -> None:
    node = storage.node("n1", attach=True, change=with_controller(RefusesToDetach))
    node.start_driver()
    node.start_companion()
    await storage.add_class()
    await storage.add_claim("data")
    volume = await storage.bound("data")
    made = await storage.attachment(volume.metadata.name, "n1")
    await _attachment(storage, made.metadata.name, lambda found: found.status.attached)
    await node.kill("companion")
    await storage.client.delete(VolumeAttachment, made.metadata.name)
    node.start_companion()
    await storage.until(lambda: _no_attachments(storage))


@pytest.mark.parametrize("part", ["driver", "companion"])
async def test_resize_survives_the_kill_of_a_part(storage: Storage, part: str) -> None:
    node = storage.node("n1", is_process=True)
    node.start_driver()
    node.start_companion()
    await storage.add_class()
    await storage.add_claim("data")
    await storage.bound("data")
    for number, size in enumerate(("2Gi", "3Gi", "4Gi")):
        await _grow(storage, "data", size)
        await asyncio.sleep(0.005 * number)
        await node.kill(part)
        node.start_companion() if part == "companion" else node.start_driver()

    async def grown() -> bool:
        return (await storage.bound("data")).spec.capacity["storage"].string == "4Gi"

    await storage.until(grown)


async def test_driver_that_lost_its_state_is_told_of(storage: Storage) -> None:
    node = storage.node("n1")
    node.start_driver()
    node.start_companion()
    await storage.add_class()
    await storage.add_claim("data")
    volume = await storage.bound("data")
    await node.kill("driver")
    (node.state / "volumes").rename(node.state / "lost")
    node.start_driver()
    await _grow(storage, "data", "2Gi")

    async def told() -> bool:
        return "VolumeResizeFailed" in await storage.events("data")

    await storage.until(told)
    assert (await storage.bound("data")).spec.capacity["storage"].string == "1Gi"
    await storage.client.delete(Claim, "data", "default")

    async def gone() -> bool:
        return volume.metadata.name not in [found.metadata.name for found in await storage.volumes()]

    await storage.until(gone)


class Central(HostPathController):
    """As if any node reached its volumes."""

    async def CreateVolume(self, request: csi_pb2.CreateVolumeRequest) -> csi_pb2.CreateVolumeResponse:
        reply = await super().CreateVolume(request)
        del reply.volume.accessible_topology[:]
        return reply


async def test_central_driver_is_served_by_the_companion_that_holds_its_lease(storage: Storage) -> None:
    def change(driver: Driver) -> Driver:
        return replace(with_controller(Central)(driver), topology=False)

    nodes = [storage.node(name, change=change) for name in ("n1", "n2")]
    for node in nodes:
        node.start_driver()
        node.start_companion()
    await storage.add_class()
    for number in range(3):
        await storage.add_claim(f"data-{number}")
    for number in range(3):
        await storage.bound(f"data-{number}")
    assert sorted(len(node.volumes()) for node in nodes) == [0, 3]
