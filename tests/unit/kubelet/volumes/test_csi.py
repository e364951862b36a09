"""CSI volumes of pods: mounted, undone, and neither lost nor leaked by crashes, reboots and bad drivers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import grpc
import pytest

from tests.support.csi_driver import FakeNodeService, Rpc
from tests.unit.kubelet.volumes.csi_world import (
    DRIVER,
    CsiWorld,
    change_driver,
    claiming_pod,
    csi_world,
    inline_pod,
    methods,
    seed_attachment,
    seed_claim,
)
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys.api.storage.v1.storage_pb2 import CSIDriver, VolumeAttachment
from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_kubelet.volumes import in_use
from tiphys_kubelet.volumes.csi_disk import CsiPaths
from tiphys_kubelet.volumes.interface import VolumeError, VolumesFailed

Mode = csi_pb2.VolumeCapability.AccessMode
NOT_FOUND = f"driver name {DRIVER} not found in the list of registered CSI drivers"


async def until(holds: Callable[[], bool]) -> None:
    """Waits for what another task does."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110  # what it waits for has no event
            await asyncio.sleep(0.001)


async def test_claim_is_staged_published_and_undone_in_reverse() -> None:
    async with csi_world() as world:
        seed_claim(world)
        mounted = await world.ensure(claiming_pod())
        assert methods(world) == ["Stage", "Publish"]
        path = mounted["v-data"].host_path
        assert str(path.relative_to(world.root)) == "pods/uid-1/volumes/kubernetes.io~csi/pv-data/mount"
        assert json.loads((path.parent / "vol_data.json").read_text()) == {
            "attachmentID": "",
            "driverName": DRIVER,
            "nodeName": "node-1",
            "specVolID": "pv-data",
            "volumeHandle": "handle-data",
            "volumeLifecycleMode": "Persistent",
        }
        await world.manager.tear_down("uid-1")
        assert methods(world) == ["Stage", "Publish", "Unpublish", "Unstage"]
        assert world.left() == []


async def test_setting_up_again_asks_the_driver_nothing() -> None:
    async with csi_world() as world:
        seed_claim(world)
        await world.ensure(claiming_pod())
        await world.ensure(claiming_pod())
        assert methods(world) == ["Stage", "Publish"]


async def test_volume_of_two_pods_is_staged_once_and_unstaged_with_the_last() -> None:
    async with csi_world() as world:
        seed_claim(world)
        async with asyncio.TaskGroup() as group:
            group.create_task(world.ensure(claiming_pod(uid="a")))
            group.create_task(world.ensure(claiming_pod(uid="b")))
        await world.manager.tear_down("a")
        assert methods(world) == ["Stage", "Publish", "Publish", "Unpublish"]
        await world.manager.tear_down("b")
        assert methods(world)[-2:] == ["Unpublish", "Unstage"]
        assert world.left() == []


async def test_driver_that_does_not_stage_is_only_asked_to_publish() -> None:
    async with csi_world(FakeNodeService(can=())) as world:
        seed_claim(world)
        await world.ensure(claiming_pod())
        assert world.driver.called("NodePublishVolume")[0].staging_target_path == ""
        await world.manager.tear_down("uid-1")
        assert methods(world) == ["Publish", "Unpublish"]
        assert world.left() == []


async def test_request_carries_what_volume_class_and_pod_say() -> None:
    async with csi_world() as world:
        _, volume = seed_claim(world, fsType="ext4")
        source = volume.spec.persistentVolumeSource.csi
        source.volumeAttributes["kind"] = "fast"
        source.nodeStageSecretRef.name, source.nodeStageSecretRef.namespace = "key", "vault"
        volume.spec.mountOptions.append("noatime")
        secret = Secret()
        secret.metadata.name, secret.metadata.namespace = "key", "vault"
        secret.data["password"] = b"x"
        world.client.seed(volume, secret)
        change_driver(world, podInfoOnMount=True)
        await world.ensure(claiming_pod(read_only=True))
        stage, publish = world.driver.called("NodeStageVolume")[0], world.driver.called("NodePublishVolume")[0]
        assert dict(stage.secrets) == {"password": "x"}
        assert dict(stage.volume_context) == {"kind": "fast"}
        assert stage.volume_capability.mount.fs_type == "ext4"
        assert list(publish.volume_capability.mount.mount_flags) == ["noatime"]
        assert publish.volume_capability.access_mode.mode == Mode.SINGLE_NODE_WRITER
        assert publish.readonly
        assert publish.volume_context["csi.storage.k8s.io/pod.name"] == "web"
        assert publish.volume_context["csi.storage.k8s.io/ephemeral"] == "false"


async def test_tokens_of_the_pod_are_handed_to_a_driver_that_asks_for_them() -> None:
    async with csi_world() as world:
        seed_claim(world)
        driver = world.client.stored(CSIDriver, DRIVER)
        driver.spec.tokenRequests.add(audience="vault", expirationSeconds=600)
        world.client.seed(driver)
        await world.ensure(claiming_pod())
        context = world.driver.called("NodePublishVolume")[0].volume_context
        assert json.loads(context["csi.storage.k8s.io/serviceAccount.tokens"])["vault"]["token"] == "token for vault"


@pytest.mark.parametrize(
    ("can", "policy", "fs_type", "group"),
    [
        pytest.param((Rpc.VOLUME_MOUNT_GROUP,), "File", "", "2000", id="driver mounts with the group"),
        pytest.param((), "File", "", "", id="kubelet gives it"),
        pytest.param((Rpc.VOLUME_MOUNT_GROUP,), "None", "ext4", "", id="nobody does"),
        pytest.param((Rpc.VOLUME_MOUNT_GROUP,), "ReadWriteOnceWithFSType", "", "", id="no file system named"),
        pytest.param((Rpc.VOLUME_MOUNT_GROUP,), "ReadWriteOnceWithFSType", "ext4", "2000", id="one writer"),
    ],
)
async def test_group_of_the_pod_follows_the_drivers_policy(
    can: tuple[Rpc.Type.ValueType, ...], policy: str, fs_type: str, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    monkeypatch.setattr("tiphys_kubelet.volumes.csi.give_to_group", lambda path, gid, **_: given.append(gid))
    async with csi_world(FakeNodeService(can=can)) as world:
        change_driver(world, fsGroupPolicy=policy)
        seed_claim(world, fsType=fs_type)
        pod = claiming_pod()
        pod.spec.securityContext.fsGroup = 2000
        await world.ensure(pod)
        asked = world.driver.called("NodePublishVolume")[0].volume_capability.mount.volume_mount_group
        assert asked == group
        assert given == ([2000] if policy == "File" and not can else [])


async def test_inline_volume_lives_and_dies_with_its_pod() -> None:
    async with csi_world() as world:
        change_driver(world, volumeLifecycleModes=["Ephemeral"])
        pod = inline_pod(size="1Gi")
        await world.ensure(pod)
        publish = world.driver.called("NodePublishVolume")[0]
        assert publish.volume_id.startswith("csi-")
        assert publish.volume_context["size"] == "1Gi"
        await world.manager.tear_down("uid-1")
        assert methods(world) == ["Publish", "Unpublish"]
        assert world.left() == []


async def test_inline_volume_of_a_driver_that_has_none_is_refused() -> None:
    async with csi_world() as world:
        with pytest.raises(VolumesFailed, match="Ephemeral") as failed:
            await world.ensure(inline_pod())
        assert str(failed.value) == (
            f'MountVolume.SetUp failed for volume "scratch" : volume mode "Ephemeral" not supported by driver {DRIVER} '
            '(only supports ["Persistent"])'
        )


def lose_claim(claim: PersistentVolumeClaim, volume: PersistentVolume) -> None:
    claim.status.phase = "Lost"


def unbind(claim: PersistentVolumeClaim, volume: PersistentVolume) -> None:
    claim.status.phase, claim.spec.volumeName = "Pending", ""


def give_away(claim: PersistentVolumeClaim, volume: PersistentVolume) -> None:
    volume.spec.claimRef.uid = "another"


def mount_block(claim: PersistentVolumeClaim, volume: PersistentVolume) -> None:
    volume.spec.volumeMode = "Block"


def make_strange(claim: PersistentVolumeClaim, volume: PersistentVolume) -> None:
    volume.spec.persistentVolumeSource.Clear()
    volume.spec.persistentVolumeSource.rbd.image = "x"


@pytest.mark.parametrize(
    ("change", "reason", "text"),
    [
        pytest.param(unbind, "FailedMount", "error processing PVC default/data: PVC is not bound", id="not bound"),
        pytest.param(
            lose_claim,
            "FailedMount",
            "error processing PVC default/data: PVC is lost: its volume pv-data is gone",
            id="lost",
        ),
        pytest.param(
            give_away,
            "FailedMount",
            "error processing PVC default/data: found PV object pv-data with claimRef.UID another, "
            "but the claim has UID uid-data",
            id="bound to another",
        ),
        pytest.param(
            mount_block,
            "FailedMapVolume",
            "volume v-data has volumeMode Block, but is specified in volumeMounts",
            id="a device as a file system",
        ),
        pytest.param(make_strange, "FailedMount", "source rbd is not supported on this node", id="unknown source"),
    ],
)
async def test_claim_that_can_not_be_mounted_says_why(
    change: Callable[[PersistentVolumeClaim, PersistentVolume], None], reason: str, text: str
) -> None:
    async with csi_world() as world:
        claim, volume = seed_claim(world)
        change(claim, volume)
        world.client.seed(claim, volume)
        pod = claiming_pod()
        pod.spec.containers[0].volumeMounts.add(name="v-data", mountPath="/data")
        with pytest.raises(VolumesFailed) as failed:
            await world.ensure(pod)
        assert failed.value.texts[0][0] == reason
        assert text in failed.value.texts[0][1]


async def test_block_volume_is_handed_to_the_container_as_a_device() -> None:
    async with csi_world() as world:
        _, volume = seed_claim(world)
        volume.spec.volumeMode = "Block"
        world.client.seed(volume)
        pod = claiming_pod()
        pod.spec.containers[0].volumeDevices.add(name="v-data", devicePath="/dev/disk")
        mounted = await world.ensure(pod)
        assert world.driver.called("NodePublishVolume")[0].volume_capability.HasField("block")
        (device,) = world.manager.devices_of(pod.spec.containers[0], mounted)
        assert (device.container_path, device.permissions) == ("/dev/disk", "mrw")
        assert device.host_path == str(mounted["v-data"].host_path)
        await world.manager.tear_down("uid-1")
        assert world.left() == []


async def test_device_that_can_not_be_mapped_is_told_as_such() -> None:
    async with csi_world() as world:
        _, volume = seed_claim(world)
        volume.spec.volumeMode = "Block"
        world.client.seed(volume)
        world.driver.fail["NodeStageVolume"] = (grpc.StatusCode.INTERNAL, "no")
        with pytest.raises(VolumesFailed) as failed:
            await world.ensure(claiming_pod())
        text = 'MapVolume.SetUpDevice failed for volume "pv-data" : rpc error: code = Internal desc = no'
        assert failed.value.texts == [("FailedMapVolume", text)]


async def test_claim_that_does_not_exist_says_so() -> None:
    async with csi_world() as world:
        with pytest.raises(
            VolumesFailed, match='failed to fetch PVC from API server: persistentvolumeclaims "data" not found'
        ):
            await world.ensure(claiming_pod())


async def test_driver_that_is_not_registered_is_named_and_then_used_when_it_comes() -> None:
    async with csi_world() as world:
        seed_claim(world)
        await world.csi.drivers.deregister(DRIVER)
        with pytest.raises(VolumesFailed) as failed:
            await world.ensure(claiming_pod())
        assert str(failed.value) == f'MountVolume.SetUp failed for volume "pv-data" : {NOT_FOUND}'
        # Nothing was asked of anybody, so the pod can go without the driver.
        await world.manager.tear_down("uid-1")
        assert world.left() == []
        await world.register()
        await world.ensure(claiming_pod())


async def test_refusal_of_the_driver_is_told_in_its_words_and_tried_again() -> None:
    async with csi_world() as world:
        seed_claim(world)
        world.driver.fail["NodeStageVolume"] = (grpc.StatusCode.INTERNAL, "disk is on fire")
        with pytest.raises(VolumesFailed) as failed:
            await world.ensure(claiming_pod())
        text = 'MountVolume.MountDevice failed for volume "pv-data" : rpc error: code = Internal desc = disk is on fire'
        assert str(failed.value) == text
        world.driver.fail.clear()
        await world.ensure(claiming_pod())


async def test_driver_that_hangs_is_bounded_and_other_volumes_go_on() -> None:
    async with csi_world(timeout_s=0.05) as world:
        seed_claim(world)
        change_driver(world, volumeLifecycleModes=["Ephemeral", "Persistent"])
        pod = claiming_pod()
        pod.spec.volumes.append(inline_pod().spec.volumes[0])
        world.driver.hang.add("NodeStageVolume")
        with pytest.raises(VolumesFailed, match="code = DeadlineExceeded desc = context deadline exceeded"):
            await world.ensure(pod)
        assert methods(world).count("Publish") == 1
        world.driver.hang.clear()
        await world.manager.tear_down("uid-1")
        # It may have staged after all, so it was told to undo that.
        assert world.driver.staged == world.driver.published == set()
        assert world.left() == []


async def test_teardown_waits_for_the_driver_and_others_do_not_wait() -> None:
    async with csi_world() as world:
        seed_claim(world)
        pod = claiming_pod()
        pod.spec.volumes.add(name="empty").volumeSource.emptyDir.SetInParent()
        await world.ensure(pod)
        await world.csi.drivers.deregister(DRIVER)
        with pytest.raises(VolumeError, match=f'UnmountVolume.TearDown failed for volume "pv-data" : {NOT_FOUND}'):
            await world.manager.tear_down("uid-1")
        assert world.driver.published
        await world.register()
        await world.manager.tear_down("uid-1")
        assert world.left() == []


async def test_mount_waits_until_the_volume_is_attached_and_is_in_use_before() -> None:
    async with csi_world() as world:
        change_driver(world, attachRequired=True)
        seed_claim(world)
        with pytest.raises(VolumesFailed, match="volume handle-data is not attached to node node-1") as failed:
            await world.ensure(claiming_pod())
        assert failed.value.waiting
        node = world.client.stored(Node, "node-1")
        assert list(node.status.volumesInUse) == [f"kubernetes.io/csi/{DRIVER}^handle-data"]
        assert methods(world) == []
        attachment = seed_attachment(world, attached=False)
        with pytest.raises(VolumesFailed, match="has not been attached: it is being attached"):
            await world.ensure(claiming_pod())
        attachment.status.attached = True
        world.client.seed(attachment)
        await world.ensure(claiming_pod())
        assert dict(world.driver.called("NodeStageVolume")[0].publish_context) == {"device": "/dev/x"}


async def test_attachment_that_is_being_deleted_is_none() -> None:
    async with csi_world() as world:
        change_driver(world, attachRequired=True)
        seed_claim(world)
        attachment: VolumeAttachment = seed_attachment(world)
        attachment.metadata.deletionTimestamp.seconds = 1
        world.client.seed(attachment)
        with pytest.raises(VolumesFailed, match="is not attached"):
            await world.ensure(claiming_pod())


async def test_volume_is_in_use_until_it_is_unstaged_also_after_a_crash() -> None:
    async with csi_world() as world:
        change_driver(world, attachRequired=True)
        seed_claim(world)
        seed_attachment(world)
        await world.ensure(claiming_pod())

        def used() -> list[str]:
            return list(world.client.stored(Node, "node-1").status.volumesInUse)

        await world.stop()
        stale = world.client.stored(Node, "node-1")
        stale.status.volumesInUse[:] = ["kubernetes.io/csi/other^x"]
        world.client.seed(stale)
        await world.start()
        await until(lambda: used() == [f"kubernetes.io/csi/{DRIVER}^handle-data"])
        world.driver.fail["NodeUnstageVolume"] = (grpc.StatusCode.INTERNAL, "busy")
        await world.manager.tear_down("uid-1")
        assert used()
        world.driver.fail.clear()
        assert await world.csi.plugin.collect()
        await until(lambda: used() == [])
        assert world.left() == []


async def test_status_that_can_not_be_written_keeps_the_volume_from_being_mounted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(in_use, "REPORT_TIMEOUT_S", 0.05)
    async with csi_world() as world:
        change_driver(world, attachRequired=True)
        seed_claim(world)
        seed_attachment(world)
        await world.stop()
        with pytest.raises(VolumesFailed, match="has not been added to the list of VolumesInUse"):
            await world.ensure(claiming_pod())
        assert methods(world) == []


async def test_volume_grows_on_the_node_and_its_claim_says_so() -> None:
    async with csi_world() as world:
        claim, volume = seed_claim(world)
        pod = claiming_pod()
        await world.ensure(pod)
        assert methods(world) == ["Stage", "Publish"]
        volume.spec.capacity["storage"].string = "2Gi"
        claim.status.conditions.add(type="FileSystemResizePending", status="True")
        world.client.seed(claim, volume)
        await world.ensure(pod)
        assert world.driver.called("NodeExpandVolume")[0].capacity_range.required_bytes == 2 << 30
        stored = world.client.stored(PersistentVolumeClaim, "data", "default")
        assert stored.status.capacity["storage"].string == "2Gi"
        assert list(stored.status.conditions) == []
        text = 'FileSystemResizeSuccessful: MountVolume.NodeExpandVolume succeeded for volume "pv-data" node-1'
        assert text in world.told.events
        await world.ensure(pod)
        assert len(world.driver.called("NodeExpandVolume")) == 1


async def test_growth_that_fails_is_told_and_leaves_the_volume_mounted() -> None:
    async with csi_world() as world:
        _, volume = seed_claim(world)
        volume.spec.capacity["storage"].string = "2Gi"
        world.client.seed(volume)
        world.driver.fail["NodeExpandVolume"] = (grpc.StatusCode.INTERNAL, "no")
        mounted = await world.ensure(claiming_pod())
        assert mounted["v-data"].refresh_at is not None
        assert any(event.startswith("VolumeResizeFailed: ") for event in world.told.events)


async def test_host_path_and_local_volumes_are_found_behind_claims() -> None:
    async with csi_world() as world:
        _, volume = seed_claim(world)
        volume.spec.persistentVolumeSource.Clear()
        volume.spec.persistentVolumeSource.local.path = str(world.root)
        world.client.seed(volume)
        assert (await world.ensure(claiming_pod()))["v-data"].host_path == world.root


STEPS = ["NodeStageVolume", "NodePublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume"]


async def collect_all(world: CsiWorld) -> None:
    """Collect until nothing is left to do: a driver may still be at the call of the life before."""
    for _ in range(50):
        if await world.csi.plugin.collect():
            return
    raise AssertionError("the collector never came to its end")


@pytest.mark.parametrize("step", STEPS)
async def test_kubelet_killed_amid_any_call_leaks_nothing(step: str) -> None:
    async with csi_world() as world:
        seed_claim(world)
        world.driver.hang.add(step)

        async def life() -> None:
            await world.ensure(claiming_pod())
            await world.manager.tear_down("uid-1")

        async with asyncio.TaskGroup() as group:
            task = group.create_task(life())
            await until(lambda: bool(world.driver.called(step)))
            task.cancel()
        world.driver.hang.clear()
        await world.restart()
        for uid in world.manager.uids():
            await world.manager.tear_down(uid)
        await collect_all(world)
        assert world.driver.staged == world.driver.published == set()
        assert world.left() == []


@pytest.mark.parametrize("rounds", range(0, 60, 3))
async def test_kubelet_killed_at_any_await_leaks_nothing(rounds: int) -> None:
    async with csi_world() as world:
        seed_claim(world)

        async def life() -> None:
            await world.ensure(claiming_pod())
            await world.manager.tear_down("uid-1")

        async with asyncio.TaskGroup() as group:
            task = group.create_task(life())
            for _ in range(rounds):
                await asyncio.sleep(0)
            task.cancel()
        await world.restart()
        for uid in world.manager.uids():
            await world.manager.tear_down(uid)
        await collect_all(world)
        assert world.driver.staged == world.driver.published == set()
        assert world.left() == []


async def test_a_directory_without_its_note_is_collected() -> None:
    """As a kubelet leaves it that dies between making it and writing the note, or between removing both."""
    async with csi_world() as world:
        seed_claim(world)
        await world.ensure(claiming_pod())
        left = CsiPaths(world.root).staging(DRIVER, "another")
        left.mkdir(parents=True)
        assert await world.csi.plugin.collect()
        assert not left.exists()
        assert world.driver.staged != set()


async def check_reboots(world: CsiWorld, count: int) -> None:
    """The pod's mounts come back each time, and when it is gone nothing is left."""
    for number in range(count):
        uid = f"uid-{number}"
        await world.ensure(claiming_pod(uid=uid))
        assert len(world.driver.published) == 1
        assert len(world.driver.staged) == 1
        await world.stop()
        world.driver.reboot()
        await world.start()
        if number % 2:
            # The pod lives on and gets its volume again.
            await world.ensure(claiming_pod(uid=uid))
            assert len(world.driver.published) == 1
        await world.manager.tear_down(uid)
        assert world.left() == []
        assert world.driver.staged == world.driver.published == set()


async def test_reboots_leak_nothing() -> None:
    async with csi_world() as world:
        seed_claim(world)
        await check_reboots(world, 4)


async def test_torn_note_does_not_hold_up_a_pod() -> None:
    async with csi_world() as world:
        seed_claim(world)
        mounted = await world.ensure(claiming_pod())
        path = mounted["v-data"].host_path
        await asyncio.to_thread((path.parent / "vol_data.json").write_text, "{")
        await world.manager.tear_down("uid-1")
        assert not await asyncio.to_thread((world.root / "pods" / "uid-1").exists)
