"""Pod workers against the runtime in memory, on a clock that is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import pytest

from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.event_pb2 import Event
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.fields import FieldSelector
from tiphys_apimachinery.labels import Selector
from tiphys_client.fake import FakeClient
from tiphys_client.fake_store import Selection
from tiphys_component.clock import FakeClock
from tiphys_cri.errors import CRIError, CRIUnavailable
from tiphys_cri.fake import FakeImages, FakeRuntime
from tiphys_kubelet.kubelet import Kubelet, Outside
from tiphys_kubelet.objects import ObjectKey, Objects
from tiphys_kubelet.options import Options
from tiphys_kubelet.volumes.interface import VolumeError
from tiphys_kubelet.volumes.manager import MountedVolumes, VolumeSurroundings

NODE = "node-1"
EVENTS = Selection(Event, "default", Selector.parse(""), FieldSelector.parse(""))


@dataclass(slots=True)
class World:
    """A kubelet whose runtime, API server and time are in memory."""

    kubelet: Kubelet
    client: FakeClient
    runtime: FakeRuntime
    images: FakeImages
    clock: FakeClock

    async def settle(self, seconds: float = 0.0) -> None:
        """Moves the clock and waits until all is quiet; volumes are written in threads, which take real time."""
        await self.clock.run_for(seconds)
        for _ in range(10):
            await asyncio.sleep(0.0005)
            await self.clock.run_for(0)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits for what threads still do."""
        for _ in range(5_000):
            if holds():
                return
            await asyncio.sleep(0.0005)
            await self.clock.run_for(0)
        raise AssertionError(f"it does not come true: {self.status()}")

    def status(self, name: str = "web") -> Pod | None:
        """The stored pod."""
        return self.client.find_stored(Pod, name, "default")

    def restarts(self) -> int:
        """Restarts of the first container."""
        pod = self.status()
        return pod.status.containerStatuses[0].restartCount if pod and pod.status.containerStatuses else -1


@asynccontextmanager
async def world(root: Path) -> AsyncIterator[World]:
    """Runs a kubelet in memory, without its servers."""
    clock = FakeClock()
    client, images = FakeClient(clock), FakeImages()
    images.add("busybox")
    runtime = FakeRuntime(clock, images=images)
    options = Options(
        kubeconfig=Path("none"),
        hostname_override=NODE,
        node_ip=("198.18.1.1",),
        root_dir=root,
        pod_log_dir=root / "logs",
        cgroups_per_qos=False,
        resolv_conf=root / "none",
    )
    kubelet = Kubelet(options, Outside(client, runtime, images, clock))
    async with asyncio.TaskGroup() as group:
        loops = [group.create_task(loop.run()) for loop in kubelet.loops()]
        loops.append(group.create_task(kubelet.hand_over()))
        try:
            yield World(kubelet, client, runtime, images, clock)
        finally:
            for loop in loops:
                loop.cancel()


def make_pod(*command: str, policy: str = "Always") -> Pod:
    """A pod bound to the node."""
    pod = Pod()
    pod.metadata.name, pod.metadata.namespace, pod.metadata.uid = "web", "default", "uid-1"
    pod.spec.nodeName, pod.spec.restartPolicy = NODE, policy
    container = pod.spec.containers.add(name="app", image="busybox", imagePullPolicy="IfNotPresent")
    container.command.extend(command or ("run",))
    return pod


def is_running(world: World) -> bool:
    """The stored pod's phase."""
    pod = world.status()
    return pod is not None and pod.status.phase == "Running"


async def test_pod_runs_and_is_reported(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.client.create(make_pod())
        await here.until(lambda: is_running(here))
        pod = here.status()
        assert pod is not None
        assert pod.status.podIP == "10.244.0.1"
        assert pod.status.containerStatuses[0].ready


async def test_D16_crash_loop_waits_10_20_40_and_so_on(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.client.create(make_pod("false"))
        await here.until(lambda: here.restarts() == 1)

        def has_restarted(times: int) -> bool:
            return here.restarts() == times

        for number, delay_s in enumerate((10, 20, 40), start=2):
            await here.settle(delay_s - 2.0)
            assert here.restarts() == number - 1
            await here.settle(2.5)
            await here.until(partial(has_restarted, number))


async def test_deletion_takes_everything_away(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.client.create(make_pod())
        await here.until(lambda: is_running(here))
        await here.client.delete(Pod, "web", "default", grace_period_s=5)
        await here.until(lambda: here.status() is None)
        await here.until(lambda: here.kubelet.workers.workers() == ())
        assert await here.runtime.list_pod_sandboxes() == []
        assert await here.runtime.list_containers() == []
        assert here.kubelet.volumes.uids() == set()


async def test_J5_steps_of_a_worker_are_timed_by_why_they_were_taken(tmp_path: Path) -> None:
    async with world(tmp_path) as here:

        def steps(operation: str) -> float:
            name = "kubelet_pod_worker_duration_seconds_count"
            return here.kubelet.metrics.registry.value(name, operation_type=operation) or 0

        await here.client.create(make_pod("false"))
        await here.until(lambda: here.restarts() == 1)
        assert (steps("create"), steps("update") > 0, steps("kill")) == (1, True, 0)
        # A container that fails is looked at again when its back-off is over.
        before = steps("sync")
        await here.settle(10.5)
        await here.until(lambda: here.restarts() == 2)
        assert steps("sync") > before
        await here.client.delete(Pod, "web", "default")
        await here.until(lambda: here.status() is None)
        assert (steps("create"), steps("kill") > 0) == (1, True)


async def test_pod_removed_by_force_is_ended_too(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.client.create(make_pod())
        await here.until(lambda: is_running(here))
        await here.client.delete(Pod, "web", "default", grace_period_s=0)
        await here.until(lambda: here.kubelet.workers.workers() == ())
        assert await here.runtime.list_pod_sandboxes() == []


async def test_failed_sandbox_is_tried_again(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.runtime.fail("run_pod_sandbox", CRIError("network is not ready"))
        await here.client.create(make_pod())
        await here.settle()
        assert not is_running(here)
        await here.settle(1.0)
        await here.until(lambda: is_running(here))


async def test_runtime_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        for _ in range(2):
            error = CRIUnavailable("connection refused", code=grpc.StatusCode.UNAVAILABLE)
            here.runtime.fail("create_container", error)
        await here.client.create(make_pod())
        for _ in range(50):
            # Threads of a busy machine may be late: a failure that comes later waits for the clock again.
            await here.settle(12.0)
            if is_running(here):
                break
        assert is_running(here)


async def test_image_appears_and_the_pod_starts(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        pod = make_pod()
        pod.spec.containers[0].image = "later:1"
        await here.client.create(pod)
        await here.until(lambda: waiting(here) == "ErrImagePull")
        await here.settle(1.5)
        await here.until(lambda: waiting(here) == "ImagePullBackOff")
        here.images.registry.add("later:1")
        await here.settle(10.0)
        await here.until(lambda: is_running(here))


def waiting(here: World) -> str:
    """Why the first container waits."""
    pod = here.status()
    return next((s.state.waiting.reason for s in pod.status.containerStatuses), "") if pod else ""


async def test_pod_past_its_deadline_fails(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        pod = make_pod()
        pod.spec.activeDeadlineSeconds = 30
        await here.client.create(pod)
        await here.until(lambda: is_running(here))
        await here.settle(31.0)
        await here.until(lambda: (found := here.status()) is not None and found.status.phase == "Failed")
        ended = here.status()
        assert ended is not None
        assert ended.status.reason == "DeadlineExceeded"


async def test_finalizer_of_another_holds_the_object_and_not_the_worker(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        pod = make_pod("true", policy="Never")
        pod.metadata.finalizers.append("example.com/hold")
        await here.client.create(pod)
        await here.until(lambda: (found := here.status()) is not None and found.status.phase == "Succeeded")
        await here.client.delete(Pod, "web", "default")
        await here.until(lambda: here.kubelet.workers.workers() == ())
        held = here.status()
        assert held is not None
        assert held.metadata.HasField("deletionTimestamp")


async def reads_config(here: World, root: Path, value: str) -> tuple[str, Path]:
    """Runs a pod with a ConfigMap as its volume: its uid, and the file that holds the value."""
    config = ConfigMap(data={"k": value})
    config.metadata.name, config.metadata.namespace = "conf", "default"
    here.client.seed(config)
    pod = make_pod()
    pod.spec.volumes.add(name="v").volumeSource.configMap.localObjectReference.name = "conf"
    await here.client.create(pod)
    await here.until(lambda: is_running(here))
    (container,) = await here.runtime.list_containers()
    uid = container.labels["io.kubernetes.pod.uid"]
    return uid, root / "pods" / uid / "volumes/kubernetes.io~configmap/v/k"


async def test_deleted_config_map_leaves_the_volume_and_the_worker_at_work(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        _, path = await reads_config(here, tmp_path, "v")
        await here.client.delete(ConfigMap, "conf", "default")
        await here.settle(1.0)
        (container,) = await here.runtime.list_containers()
        here.runtime.exit(container.id, 1)
        await here.settle()
        found = here.kubelet.lifecycle.observation(container.labels["io.kubernetes.pod.uid"]).latest("app")
        assert found is not None
        assert found.exit_code == 1
        told = here.status()
        assert told is not None
        assert told.status.containerStatuses[0].state.terminated.exitCode == 1
        assert path.read_text() == "v"


async def test_change_that_comes_while_the_objects_are_read_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a claim whose volume grows: it changes twice at once, and its second state must be heard of too."""
    async with world(tmp_path) as here:
        _, path = await reads_config(here, tmp_path, "old")
        objects = here.kubelet.objects
        read = objects.objects_of
        left = ["newest"]

        async def slow(of: Pod) -> Objects:
            found = await read(of)
            if left:
                await here.client.patch(ConfigMap, "conf", "default", {"data": {"k": left.pop()}})
                newest = ObjectKey(ConfigMap, "default", "conf")
                for _ in range(1000):
                    if isinstance(stored := (await read(of))[newest], ConfigMap) and stored.data["k"] == "newest":
                        break
                    await asyncio.sleep(0)
            return found

        monkeypatch.setattr(objects, "objects_of", slow)
        await here.client.patch(ConfigMap, "conf", "default", {"data": {"k": "new"}})
        await here.until(lambda: path.read_text() == "newest")


async def test_what_was_missing_and_comes_while_it_is_missed_is_used_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a driver that registers while the volumes of a running pod fail for want of it."""
    async with world(tmp_path) as here:
        uid, path = await reads_config(here, tmp_path, "old")
        volumes = here.kubelet.volumes
        ensure = volumes.ensure
        left = [1]

        async def fail_once(of: Pod, surroundings: VolumeSurroundings) -> MountedVolumes:
            if left:
                left.pop()
                here.kubelet.workers.objects_changed(uid)
                raise VolumeError("not yet")
            return await ensure(of, surroundings)

        monkeypatch.setattr(volumes, "ensure", fail_once)
        await here.client.patch(ConfigMap, "conf", "default", {"data": {"k": "new"}})
        await here.until(lambda: path.read_text() == "new")


def refuse_root(pod: Pod) -> None:
    """The image's user is root, and must not be."""
    pod.spec.securityContext.runAsNonRoot = True


def misname(pod: Pod) -> None:
    """No image can have the name."""
    pod.spec.containers[0].image = "No/such::1"


@pytest.mark.parametrize(
    ("change", "reason", "event"),
    [
        pytest.param(
            refuse_root,
            "CreateContainerConfigError",
            "Error: container has runAsNonRoot and image will run as root",
            id="root",
        ),
        pytest.param(misname, "InvalidImageName", "Error: InvalidImageName", id="name"),
    ],
)
async def test_container_that_can_not_be_made_says_why_in_status_and_event(
    tmp_path: Path, change: Callable[[Pod], None], reason: str, event: str
) -> None:
    async with world(tmp_path) as here:
        pod = make_pod()
        change(pod)
        await here.client.create(pod)

        def told() -> bool:
            events = [Event.FromString(raw) for _, raw in here.client.server.store.select(EVENTS)]
            return event in [e.message for e in events if (e.type, e.reason) == ("Warning", "Failed")]

        def waits_for_it() -> bool:
            stored = here.status()
            assert stored is not None
            return [one.state.waiting.reason for one in stored.status.containerStatuses] == [reason]

        await here.until(told)
        # Told and written are two things, and either may be first.
        await here.until(waits_for_it)


async def test_pod_waits_for_its_claim_says_so_when_it_takes_long_and_starts_the_moment_it_is_bound(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as here:
        claim, volume = PersistentVolumeClaim(), PersistentVolume()
        claim.metadata.name, claim.metadata.namespace, claim.metadata.uid = "data", "default", "uid-data"
        claim.status.phase = "Pending"
        here.client.seed(claim)
        pod = make_pod()
        pod.spec.volumes.add(name="data").volumeSource.persistentVolumeClaim.claimName = "data"
        await here.client.create(pod)

        def told() -> list[str]:
            events = [Event.FromString(raw) for _, raw in here.client.server.store.select(EVENTS)]
            return [e.message for e in events if e.reason == "FailedMount"]

        await here.settle(5)
        assert told() == []
        await here.settle(60)
        await here.until(lambda: bool(told()))
        text = 'MountVolume.SetUp failed for volume "data" : error processing PVC default/data: PVC is not bound'
        assert set(told()) == {text}
        volume.metadata.name, volume.spec.claimRef.uid = "pv", "uid-data"
        volume.spec.persistentVolumeSource.hostPath.path = str(tmp_path)
        claim.status.phase, claim.spec.volumeName = "Bound", "pv"
        here.client.seed(volume, claim)
        # No time passes: the change itself brings the pod on.
        await here.until(lambda: is_running(here))


async def test_a_corrupt_device_checkpoint_is_told_of_once_there_is_a_node(tmp_path: Path) -> None:
    (tmp_path / "device-plugins").mkdir()
    (tmp_path / "device-plugins" / "kubelet_internal_checkpoint").write_text("rubbish")
    async with world(tmp_path) as here:

        def is_told() -> bool:
            events = [Event.FromString(raw) for _, raw in here.client.server.store.select(EVENTS)]
            return any(event.reason == "CorruptDeviceCheckpoint" for event in events)

        await here.until(is_told)
