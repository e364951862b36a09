"""The NVIDIA plugin on a machine with a GPU: run `pytest tests/integration/devices/test_gpu.py` there."""

from __future__ import annotations

import asyncio
import ctypes
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.devices import device_side, gpu_pod, serving, short_folder
from tiphys_component.clock import SystemClock
from tiphys_device.driver import find_libraries
from tiphys_device.nvidia import RESOURCE, NvidiaPlugin
from tiphys_device.nvml import NvmlLibrary
from tiphys_sdk.conformance.bench import Bench
from tiphys_sdk.conformance.device import kit

# ruff: noqa: ASYNC240  files are looked at once, in a test
pytestmark = pytest.mark.gpu


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


def test_I15_the_library_tells_gpus_whose_device_files_are_there() -> None:
    with NvmlLibrary() as library:
        gpus = library.gpus()
        assert gpus
        assert all(gpu.uuid.startswith("GPU-") for gpu in gpus)
        for gpu in gpus:
            assert stat.S_ISCHR(Path(f"/dev/nvidia{gpu.minor}").stat().st_mode)
            assert library.answers(gpu)
        library.watch(gpus)
        assert library.wait_fault(0.1) is None


def test_I15_the_driver_s_libraries_are_found_and_can_be_loaded() -> None:
    with NvmlLibrary() as library:
        found = {path.name: path for path in find_libraries(library.driver_version())}
    assert "libcuda.so.1" in found, sorted(found)
    ctypes.CDLL(str(found["libcuda.so.1"]))


async def test_I15_a_pod_is_given_a_gpu_with_what_it_needs(folder: Path) -> None:
    async with device_side(folder) as side, serving(NvidiaPlugin(NvmlLibrary, SystemClock()), folder):
        await side.until(lambda: side.manager.counts().get(RESOURCE, (0, 0))[1] > 0, timeout_s=20)
        pod = gpu_pod("one", resource=RESOURCE)
        await side.manager.allocate(pod)
        grant = await side.manager.prepare(pod, pod.spec.containers[0])
    assert grant.env["NVIDIA_VISIBLE_DEVICES"].startswith("GPU-")
    assert all(Path(device.host_path).exists() for device in grant.devices)
    assert "/dev/nvidiactl" in [device.container_path for device in grant.devices]
    assert all(Path(mount.host_path).exists() for mount in grant.mounts)
    assert "/usr/local/nvidia/lib64/libcuda.so.1" in [mount.container_path for mount in grant.mounts]


async def test_L25_the_plugin_passes_the_kit(folder: Path) -> None:
    async with serving(NvidiaPlugin(NvmlLibrary, SystemClock()), folder) as server:
        async with asyncio.timeout(20):
            while not server.devices:  # noqa: ASYNC110 - another thread looks for GPUs
                await asyncio.sleep(0.05)
        bench = Bench(SystemClock())
        await kit.run(str(server.socket), bench, {"resource": RESOURCE})
    assert bench.report.passed, bench.report.to_json()
