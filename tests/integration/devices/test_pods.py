"""Devices in containers on a real containerd, with simulated GPUs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.integration.kubelet.conftest import end_pods
from tests.support.containerd import ContainerdNode
from tests.support.devices import serving
from tests.support.kubelet import NODE, RunningKubelet, is_ready, make_pod, running_kubelet, wait_until
from tests.support.promptness import PROMPTLY_S
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.thirdparty.podresources.v1 import api_pb2, api_pb2_grpc
from tiphys_component import rpc
from tiphys_device.simulated import SimulatedPlugin, parse_simulation

pytestmark = pytest.mark.containerd
GPU = "nvidia.com/gpu"


def folder(root: Path) -> Path:
    return root / "kubelet" / "device-plugins"


def simulated(root: Path, text: str = "gpu:2") -> SimulatedPlugin:
    return SimulatedPlugin(parse_simulation(text), root / "state")


def gpu_pod(name: str, count: int = 1, *command: str) -> Pod:
    pod = make_pod(name, *command, grace=1)
    pod.spec.containers[0].resources.limits[GPU].string = str(count)
    pod.spec.containers[0].resources.requests[GPU].string = str(count)
    return pod


def counts(kubelet: RunningKubelet) -> tuple[str, str] | None:
    node = kubelet.client.find_stored(Node, NODE)
    if node is None or GPU not in node.status.capacity:
        return None
    return node.status.capacity[GPU].string, node.status.allocatable[GPU].string


async def ran(kubelet: RunningKubelet, pod: Pod, *command: str) -> str:
    """What a command inside the pod's container printed."""
    run = kubelet.kubelet.lifecycle.observation(pod.metadata.uid).latest("app")
    assert run is not None
    answer = await kubelet.runtime.exec_sync(run.id, list(command), timeout_s=5)
    return answer.stdout.decode() + answer.stderr.decode()


async def test_I18_devices_are_allocatable_as_soon_as_they_are_told(kubelet: RunningKubelet, root: Path) -> None:
    await wait_until(lambda: kubelet.client.find_stored(Node, NODE) is not None)
    began = time.monotonic()
    async with serving(simulated(root), folder(root)):
        await wait_until(lambda: counts(kubelet) == ("2", "2"))
        assert time.monotonic() - began < PROMPTLY_S
        began = time.monotonic()
        (root / "state" / "faults").write_text("1: xid 79\n")
        await wait_until(lambda: counts(kubelet) == ("2", "1"))
        assert time.monotonic() - began < PROMPTLY_S
    await wait_until(lambda: counts(kubelet) == ("2", "0"))


async def test_I15_a_gpu_with_its_files_driver_and_environment_is_in_the_container(
    kubelet: RunningKubelet, root: Path
) -> None:
    async with serving(simulated(root), folder(root)):
        await wait_until(lambda: counts(kubelet) == ("2", "2"))
        one, two = gpu_pod("one"), gpu_pod("two")
        for pod in (one, two):
            await kubelet.create(pod)
            await kubelet.until(pod.metadata.name, is_ready)
        assert "/dev/nvidia0" in await ran(kubelet, one, "ls", "/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm")
        assert "No such file" in await ran(kubelet, one, "ls", "/dev/nvidia1")
        assert "/dev/nvidia1" in await ran(kubelet, two, "ls", "/dev/nvidia1")
        assert "libcuda.so.1" in await ran(kubelet, one, "ls", "/usr/local/nvidia/lib64")
        assert "GPU-fake-0" in await ran(kubelet, one, "sh", "-c", "/usr/local/nvidia/bin/nvidia-smi")
        mounts = await ran(kubelet, one, "cat", "/proc/mounts")
        assert any(" /usr/local/nvidia " in line and " ro," in line for line in mounts.splitlines()), mounts
        async with rpc.channel(rpc.unix_address(root / "kubelet/pod-resources/kubelet.sock")) as channel:
            lister: api_pb2_grpc.PodResourcesListerAsyncStub = api_pb2_grpc.PodResourcesListerStub(channel)
            told = await lister.List(api_pb2.ListPodResourcesRequest())
            whole = await lister.GetAllocatableResources(api_pb2.AllocatableResourcesRequest())
            own = await lister.Get(api_pb2.GetPodResourcesRequest(pod_name="two", pod_namespace="default"))
        held = {p.name: list(p.containers[0].devices[0].device_ids) for p in told.pod_resources}
        assert held == {"one": ["GPU-fake-0"], "two": ["GPU-fake-1"]}
        assert [list(d.device_ids) for d in whole.devices] == [["GPU-fake-0"], ["GPU-fake-1"]]
        assert own.pod_resources.name == "two"


async def test_a_pod_whose_device_can_not_be_had_fails_and_the_device_is_free_when_its_owner_ends(
    kubelet: RunningKubelet, root: Path
) -> None:
    async with serving(simulated(root, "gpu:1"), folder(root)):
        await wait_until(lambda: counts(kubelet) == ("1", "1"))
        await kubelet.create(gpu_pod("one"))
        await kubelet.until("one", is_ready)
        await kubelet.create(gpu_pod("two"))
        refused = await kubelet.until("two", lambda pod: pod.status.phase == "Failed")
        assert refused.status.reason == "UnexpectedAdmissionError"
        assert refused.status.message == (
            "Pod was rejected: Allocate failed due to requested number of devices unavailable for nvidia.com/gpu. "
            "Requested: 1, Available: 0, which is unexpected"
        )
        await wait_until(lambda: any(r.startswith("UnexpectedAdmissionError") for r in kubelet.reasons("two")))
        await kubelet.client.delete(Pod, "one", "default")
        await kubelet.until_gone("one")
        await kubelet.create(gpu_pod("three"))
        await kubelet.until("three", is_ready)


async def test_I19_a_kubelet_that_restarts_leaves_the_pod_its_device_and_gives_it_to_nobody_else(
    containerd: ContainerdNode, root: Path
) -> None:
    try:
        async with running_kubelet(containerd, root) as first, serving(simulated(root), folder(root)):
            await wait_until(lambda: counts(first) == ("2", "2"))
            one = gpu_pod("one")
            await first.create(one)
            before = await first.until("one", is_ready)
        async with running_kubelet(containerd, root, client=first.client) as second:
            # The plugin is away, and this pod was sent here before anybody knew: it waits for its device.
            await second.create(gpu_pod("two"))
            await wait_until(lambda: counts(second) == ("2", "0"))
            await wait_until(lambda: any(r.startswith("WaitingForDevices") for r in second.reasons("two")))
            async with serving(simulated(root), folder(root)):
                await second.until("two", is_ready)
                after = await second.until("one", is_ready)
                assert after.status.containerStatuses[0].containerID == before.status.containerStatuses[0].containerID
                owners = {slot.pod_uid: held.devices for slot, held in second.kubelet.devices.holdings().items()}
                assert owners.pop(one.metadata.uid) == ("GPU-fake-0",)
                assert list(owners.values()) == [("GPU-fake-1",)]
    finally:
        await end_pods(containerd)


async def test_I21_a_device_that_turns_unhealthy_shows_in_the_status_of_its_pod(
    kubelet: RunningKubelet, root: Path
) -> None:
    async with serving(simulated(root), folder(root)):
        await wait_until(lambda: counts(kubelet) == ("2", "2"))
        await kubelet.create(gpu_pod("one"))
        await kubelet.until("one", is_ready)

        def health(pod: Pod) -> list[tuple[str, str]]:
            told = pod.status.containerStatuses[0].allocatedResourcesStatus
            return [(r.resourceID, r.health) for status in told for r in status.resources]

        assert health(await kubelet.until("one", is_ready)) == [("GPU-fake-0", "Healthy")]
        (root / "state" / "faults").write_text("0\n")
        await kubelet.until("one", lambda pod: health(pod) == [("GPU-fake-0", "Unhealthy")])
        assert counts(kubelet) == ("2", "1")


async def test_I17_a_capacity_that_somebody_patched_becomes_allocatable_and_stays(kubelet: RunningKubelet) -> None:
    await wait_until(lambda: kubelet.client.find_stored(Node, NODE) is not None)
    patch = {"status": {"capacity": {"example.com/dongle": "4"}}}
    await kubelet.client.patch(Node, NODE, "", patch, type="strategic", subresource="status")

    def settled() -> bool:
        node = kubelet.client.find_stored(Node, NODE)
        return node is not None and node.status.allocatable["example.com/dongle"].string == "4"

    await wait_until(settled, timeout_s=2)
    kubelet.kubelet.reporter.devices_changed()
    await wait_until(settled)
