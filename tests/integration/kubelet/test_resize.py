"""Resizes of pods on a real containerd: the kernel's own files say what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.kubelet.conftest import end_pods
from tests.support.containerd import ContainerdNode
from tests.support.kubelet import RunningKubelet, is_running, make_pod, running_kubelet, wait_until
from tiphys.api.core.v1.container_pb2 import ContainerStatus
from tiphys.api.core.v1.pod_pb2 import Pod, PodCondition
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_kubelet.resizing.allocation import FILE_NAME
from tiphys_kubelet.runtime.group_files import GroupFiles
from tiphys_kubelet.runtime.limits import Limits

pytestmark = pytest.mark.containerd

MI = 1024 * 1024
CGROUPS = Path("/sys/fs/cgroup")
TAKES_MEMORY = "dd if=/dev/zero of=/dev/shm/x bs=1M count=30; trap 'exit 0' TERM; while true; do sleep 0.1; done"


def sized(name: str, amounts: str, *command: str, restart: str = "") -> Pod:
    """A pod of cpu and memory as request and limit."""
    pod = make_pod(name, *command)
    pod.metadata.generation = 1
    give(pod, amounts)
    if restart:
        pod.spec.containers[0].resizePolicy.add(resourceName=restart, restartPolicy="RestartContainer")
    return pod


def give(pod: Pod, amounts: str) -> None:
    """Makes the amounts the pod's requests and limits."""
    resources = pod.spec.containers[0].resources
    for resource, amount in zip(("cpu", "memory"), amounts.split(), strict=True):
        resources.requests[resource].string = resources.limits[resource].string = amount


async def resize(kubelet: RunningKubelet, name: str, amounts: str) -> None:
    """Changes the spec as pods/resize does."""
    stored = await kubelet.get(name)
    assert stored is not None
    changed = Pod()
    changed.CopyFrom(stored)
    give(changed, amounts)
    changed.metadata.generation += 1
    await kubelet.client.update(changed)


def of(pod: Pod) -> ContainerStatus:
    """What its container's status says."""
    return pod.status.containerStatuses[0]


def condition(pod: Pod, kind: str) -> PodCondition | None:
    """One of the pod's conditions."""
    return next((c for c in pod.status.conditions if c.type == kind), None)


def is_at(amounts: str) -> Callable[[Pod], bool]:
    """The status says that the container has these limits, and that nothing goes on."""
    cpu, memory = amounts.split()

    def holds(pod: Pod) -> bool:
        limits = of(pod).resources.limits
        return (limits["cpu"].string, limits["memory"].string) == (cpu, memory) and condition(
            pod, "PodResizeInProgress"
        ) is None

    return holds


def in_kernel(node: ContainerdNode, pod: Pod, container: str = "") -> Limits | None:
    """What the kernel's files say of the pod's group, or of its container's."""
    group = f"{node.name}/kubepods/pod{pod.metadata.uid}"
    return GroupFiles(CGROUPS, f"{group}/{container}" if container else group).read()


def runtime_id(pod: Pod) -> str:
    """The container's id as the runtime has it."""
    return of(pod).containerID.removeprefix("containerd://")


async def test_B32_D34_a_live_pod_grows_and_shrinks_in_the_kernel_without_a_restart(
    kubelet: RunningKubelet, containerd: ContainerdNode
) -> None:
    await kubelet.create(sized("web", "100m 64Mi"))
    pod = await kubelet.until("web", is_running)
    first = runtime_id(pod)
    assert in_kernel(containerd, pod, first) == Limits(102, 10_000, 64 * MI)
    for amounts, limits in (
        ("300m 128Mi", Limits(307, 30_000, 128 * MI)),
        ("50m 32Mi", Limits(51, 5_000, 32 * MI)),
    ):
        await resize(kubelet, "web", amounts)
        pod = await kubelet.until("web", is_at(amounts))
        assert (runtime_id(pod), of(pod).restartCount) == (first, 0)
        assert in_kernel(containerd, pod, first) == limits
        assert in_kernel(containerd, pod) == limits
        assert of(pod).allocatedResources["cpu"].string == amounts.split()[0]


async def test_D34_a_container_whose_policy_says_so_restarts_with_its_new_memory(
    kubelet: RunningKubelet, containerd: ContainerdNode
) -> None:
    await kubelet.create(sized("java", "100m 64Mi", restart="memory"))
    first = runtime_id(await kubelet.until("java", is_running))
    await resize(kubelet, "java", "100m 128Mi")
    pod = await kubelet.until("java", lambda pod: of(pod).restartCount == 1 and is_at("100m 128Mi")(pod))
    assert runtime_id(pod) != first
    assert in_kernel(containerd, pod, runtime_id(pod)) == Limits(102, 10_000, 128 * MI)
    assert in_kernel(containerd, pod) == Limits(102, 10_000, 128 * MI)


async def test_D34_memory_in_use_is_not_taken_away(kubelet: RunningKubelet, containerd: ContainerdNode) -> None:
    pod = sized("heap", "100m 64Mi", "sh", "-c", TAKES_MEMORY)
    await kubelet.create(pod)
    running = await kubelet.until("heap", is_running)
    used = CGROUPS / f"memory/{containerd.name}/kubepods/pod{pod.metadata.uid}/memory.usage_in_bytes"
    await wait_until(lambda: int(used.read_text()) > 30 * MI)
    await resize(kubelet, "heap", "100m 16Mi")
    held = await kubelet.until(
        "heap", lambda pod: (c := condition(pod, "PodResizeInProgress")) is not None and c.reason == "Error"
    )
    told = condition(held, "PodResizeInProgress")
    assert told is not None
    assert "memory limit (16777216) below current usage" in told.message
    kept = in_kernel(containerd, held, runtime_id(held))
    assert kept is not None
    assert kept.memory_bytes == 64 * MI
    await kubelet.runtime.exec_sync(runtime_id(running), ["sh", "-c", "rm /dev/shm/x"], timeout_s=5)
    pod = await kubelet.until("heap", is_at("100m 16Mi"), timeout_s=20.0)
    assert of(pod).restartCount == 0


async def test_B32_a_kubelet_killed_amid_a_resize_goes_on_where_it_was(
    containerd: ContainerdNode, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def hang(container_id: str, resources: cri.LinuxContainerResources) -> None:
        asked.set()
        await asyncio.Event().wait()

    try:
        async with running_kubelet(containerd, root) as before:
            await before.create(sized("web", "100m 64Mi"))
            first = runtime_id(await before.until("web", is_running))
            monkeypatch.setattr(before.runtime, "update_container_resources", hang)
            await resize(before, "web", "200m 128Mi")
            await asyncio.wait_for(asked.wait(), 10.0)
        # The grant outlives it, and the kernel has half of it: the pod's group has grown, the container's has not.
        assert (root / "kubelet" / FILE_NAME).exists()
        async with running_kubelet(containerd, root, client=before.client) as after:
            pod = await after.until("web", is_at("200m 128Mi"))
            assert (runtime_id(pod), of(pod).restartCount) == (first, 0)
            assert in_kernel(containerd, pod, first) == Limits(204, 20_000, 128 * MI)
    finally:
        await end_pods(containerd)
