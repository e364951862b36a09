"""A whole kubelet on a real containerd and its plugin restart in any order, under pods that run."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.integration.devices.test_pods import counts, folder, gpu_pod, ran, simulated
from tests.integration.kubelet.conftest import end_pods
from tests.support.containerd import ContainerdNode
from tests.support.devices import serving
from tests.support.kubelet import RunningKubelet, is_ready, running_kubelet, wait_until

pytestmark = pytest.mark.containerd
WHOLE, AWAY = ("4", "4"), ("4", "0")


async def until_whole(kubelet: RunningKubelet) -> None:
    """All devices are back; until then none was there, never some."""
    seen: set[object] = set()

    def is_whole() -> bool:
        found = counts(kubelet)
        seen.add(found)
        return found == WHOLE

    await wait_until(is_whole)
    assert seen <= {WHOLE, AWAY}


async def restart_under_pods(containerd: ContainerdNode, root: Path, seed: int, restarts: int) -> None:
    """Two pods run all the time, another comes and goes."""
    rng = random.Random(seed)
    async with AsyncExitStack() as kubelet_life, AsyncExitStack() as plugin_life:
        kubelet = await kubelet_life.enter_async_context(running_kubelet(containerd, root))
        client = kubelet.client
        await plugin_life.enter_async_context(serving(simulated(root, "gpu:4"), folder(root)))
        await wait_until(lambda: counts(kubelet) == WHOLE)
        lasting = [gpu_pod("one"), gpu_pod("two", 2)]
        for pod in lasting:
            await kubelet.create(pod)
        began = [(await kubelet.until(p.metadata.name, is_ready)).status.containerStatuses[0] for p in lasting]
        gpus = [await ran(kubelet, pod, "sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES") for pod in lasting]
        for number in range(restarts):
            if rng.random() < 0.5:
                await kubelet_life.aclose()
                kubelet = await kubelet_life.enter_async_context(running_kubelet(containerd, root, client=client))
            else:
                await plugin_life.aclose()
                await plugin_life.enter_async_context(serving(simulated(root, "gpu:4"), folder(root)))
            passing = gpu_pod(f"passing-{number}")
            await kubelet.create(passing)
            await until_whole(kubelet)
            await kubelet.until(passing.metadata.name, is_ready)
            held = [d for h in kubelet.kubelet.devices.holdings().values() for d in h.devices]
            assert sorted(held) == [f"GPU-fake-{n}" for n in range(4)]
            now = [(await kubelet.until(p.metadata.name, is_ready)).status.containerStatuses[0] for p in lasting]
            assert [s.containerID for s in now] == [s.containerID for s in began]
            assert [await ran(kubelet, pod, "sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES") for pod in lasting] == gpus
            await kubelet.client.delete(type(passing), passing.metadata.name, "default")
            await kubelet.until_gone(passing.metadata.name)
        told = [reason for number in range(restarts) for reason in kubelet.reasons(f"passing-{number}")]
        assert not [reason for reason in told if reason.startswith("UnexpectedAdmissionError")]


async def test_I19_pods_keep_their_devices_and_new_ones_get_theirs(containerd: ContainerdNode, root: Path) -> None:
    try:
        await restart_under_pods(containerd, root, seed=19, restarts=5)
    finally:
        await end_pods(containerd)


@pytest.mark.slow
async def test_I19_pods_over_sixty_restarts(containerd: ContainerdNode, root: Path) -> None:
    try:
        await restart_under_pods(containerd, root, seed=60, restarts=60)
    finally:
        await end_pods(containerd)
