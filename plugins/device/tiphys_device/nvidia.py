"""NVIDIA GPUs, whole ones: found, watched and told of by NVML.

A GPU is unhealthy from the moment that the driver tells of a fault that is not an application's own, or that the GPU
does not answer any more; it becomes healthy again when the plugin starts anew. GPUs that are cut up (MIG) are left out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace

from tiphys_component.app import StartupError
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.proc import to_thread
from tiphys_device.driver import DRIVER_FOLDER, driver_mounts, find_libraries, gpu_nodes
from tiphys_device.nearness import nearest
from tiphys_device.nvml import Gpu, Nvml, NvmlFailure, Xid
from tiphys_sdk.device.plugin import Device, DevicePlugin, Grant, Mount

RESOURCE = "nvidia.com/gpu"
# A thread that waits can't be stopped, so it never waits for long.
WAIT_S = 1.0
# Faults of the program that used the GPU, and not of the GPU.
# Source: NVIDIA's documentation of XID errors, and what its own device plugin passes over.
APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 109})


def devices_of(gpus: Sequence[Gpu]) -> dict[str, Device]:
    """The devices that are offered. Pure."""
    return {
        gpu.uuid: Device(gpu.uuid, numa_nodes=() if gpu.numa_node is None else (gpu.numa_node,))
        for gpu in gpus
        if not gpu.mig
    }


def after_fault(devices: Mapping[str, Device], fault: Xid) -> dict[str, Device]:
    """The devices after a fault; one that names no GPU may be of any. Pure."""
    if fault.number in APPLICATION_XIDS:
        return dict(devices)
    hit = {fault.uuid} if fault.uuid else set(devices)
    return {name: replace(device, healthy=device.healthy and name not in hit) for name, device in devices.items()}


class NvidiaPlugin(DevicePlugin):
    """GPUs as nvidia.com/gpu. The library is opened for as long as devices are listed."""

    resource = RESOURCE

    def __init__(self, open_library: Callable[[], Nvml], clock: Clock) -> None:
        self._open = open_library
        self._clock = clock
        self._gpus: Mapping[str, Gpu] = {}
        self._devices: dict[str, Device] = {}
        self._mounts: tuple[Mount, ...] = ()
        self._log = get_logger("nvidia")

    async def devices(self) -> AsyncGenerator[Sequence[Device]]:
        """All GPUs, and again after each fault. Raises StartupError where there is no driver."""
        library = self._open()
        try:
            await to_thread(library.__enter__)
        except NvmlFailure as err:
            raise StartupError(str(err), "install NVIDIA's driver, or offer simulated GPUs with --simulate") from err
        try:
            watched = await to_thread(self._begin, library)
            yield tuple(self._devices.values())
            while True:
                before = self._devices
                fault = await self._next_fault(library, watched=watched)
                if fault is not None:
                    self._log.warning("GPU fault", xid=fault.number, device=fault.uuid or "any")
                    self._devices = after_fault(self._devices, fault)
                silent = await to_thread(self._silent, library)
                self._devices = {n: replace(d, healthy=d.healthy and n not in silent) for n, d in self._devices.items()}
                if self._devices != before:
                    yield tuple(self._devices.values())
        finally:
            await to_thread(library.__exit__, None, None, None)

    async def _next_fault(self, library: Nvml, *, watched: bool) -> Xid | None:
        if watched:
            return await to_thread(library.wait_fault, WAIT_S)
        await self._clock.sleep(WAIT_S)
        return None

    async def allocate(self, ids: Sequence[str]) -> Grant:
        """Device files, the driver's libraries and programs, and which GPUs they are."""
        env = {
            "NVIDIA_VISIBLE_DEVICES": ",".join(ids),
            "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
            "LD_LIBRARY_PATH": f"{DRIVER_FOLDER}/lib64",
        }
        nodes = await to_thread(gpu_nodes, [self._gpus[one].minor for one in ids])
        return Grant(env=env, nodes=nodes, mounts=self._mounts)

    async def prefer(self, available: Sequence[str], must_include: Sequence[str], size: int) -> Sequence[str]:
        """GPUs of one NUMA node, where it can be."""
        return nearest(self._devices, available, must_include, size)

    def _begin(self, library: Nvml) -> bool:
        gpus = library.gpus()
        self._gpus = {gpu.uuid: gpu for gpu in gpus}
        self._devices = devices_of(gpus)
        self._mounts = driver_mounts(find_libraries(library.driver_version()))
        offered = [gpu for gpu in gpus if gpu.uuid in self._devices]
        deaf = library.watch(offered)
        for gpu in deaf:
            self._log.warning("GPU can't tell of its faults, only whether it answers", device=gpu.uuid)
        self._log.info("GPUs found", gpus=len(offered), files=len(self._mounts))
        return len(deaf) < len(offered)

    def _silent(self, library: Nvml) -> set[str]:
        return {gpu.uuid for gpu in self._gpus.values() if gpu.uuid in self._devices and not library.answers(gpu)}
