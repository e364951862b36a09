"""The NVIDIA plugin over a library that a test plays."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tiphys_component.app import StartupError
from tiphys_component.clock import FakeClock
from tiphys_device.driver import driver_mounts, find_libraries, gpu_nodes, library_names
from tiphys_device.nvidia import NvidiaPlugin, after_fault, devices_of
from tiphys_device.nvml import Gpu, NvmlFailure, Xid

GPUS = (Gpu("GPU-a", 0, "H100", 0), Gpu("GPU-b", 1, "H100", 1), Gpu("GPU-c", 2, "H100", 1, mig=True))


class PlayedNvml:
    """Two whole GPUs and one that is cut up; faults are those that a test puts in."""

    def __init__(self, *, driver: bool = True) -> None:
        self.faults: queue.Queue[Xid | None] = queue.Queue()
        self.silent: set[str] = set()
        self.open = 0
        self._driver = driver

    def __enter__(self) -> Self:
        if not self._driver:
            raise NvmlFailure("no driver")
        self.open += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open -= 1

    def driver_version(self) -> str:
        return "535.1"

    def gpus(self) -> Sequence[Gpu]:
        return GPUS

    def watch(self, gpus: Sequence[Gpu]) -> Sequence[Gpu]:
        return ()

    def wait_fault(self, timeout_s: float) -> Xid | None:
        return self.faults.get(timeout=5)

    def answers(self, gpu: Gpu) -> bool:
        return gpu.uuid not in self.silent


async def test_whole_gpus_are_offered_and_faults_of_the_gpu_make_them_unhealthy() -> None:
    library = PlayedNvml()
    plugin = NvidiaPlugin(lambda: library, FakeClock())
    lists = plugin.devices()
    assert [(d.id, d.healthy, d.numa_nodes) for d in await anext(lists)] == [
        ("GPU-a", True, (0,)),
        ("GPU-b", True, (1,)),
    ]
    for fault in (Xid(31, "GPU-a"), None, Xid(79, "GPU-b")):
        library.faults.put(fault)
    assert [d.healthy for d in await anext(lists)] == [True, False]
    library.silent.add("GPU-a")
    library.faults.put(None)
    assert [d.healthy for d in await anext(lists)] == [False, False]
    grant = await plugin.allocate(["GPU-b"])
    assert grant.env["NVIDIA_VISIBLE_DEVICES"] == "GPU-b"
    assert grant.nodes[0].host_path == "/dev/nvidia1"
    await lists.aclose()
    assert library.open == 0


async def test_without_a_driver_the_plugin_says_what_to_do() -> None:
    lists = NvidiaPlugin(lambda: PlayedNvml(driver=False), FakeClock()).devices()
    with pytest.raises(StartupError, match="--simulate"):
        await anext(lists)


def test_a_fault_without_a_gpu_may_be_of_any() -> None:
    assert [d.healthy for d in after_fault(devices_of(GPUS), Xid(79, "")).values()] == [False, False]


def test_only_the_libraries_of_this_driver_are_mounted(tmp_path: Path) -> None:
    names = ["libcuda.so", "libcuda.so.1", "libcuda.so.535.1", "libnvidia-ml.so.1", "libnvidia-ml.so.535.1"]
    others = ["libnvidia-ml2.so.1", "libnvidia-other.so.470.2", "libc.so.6", "libnvidia-note.txt"]
    assert library_names([*names, *others], "535.1") == sorted(names)
    for name in [*names, *others]:
        (tmp_path / name).touch()
    found = find_libraries("535.1", [tmp_path / "none", tmp_path])
    assert [path.name for path in found] == sorted(names)
    assert driver_mounts(found)[0].container_path == "/usr/local/nvidia/lib64/libcuda.so"


def test_shared_files_are_given_when_they_are_there(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()
    assert [n.host_path for n in gpu_nodes([1, 3], tmp_path)] == ["/dev/nvidia1", "/dev/nvidia3", "/dev/nvidiactl"]
