"""GPUs that are not there: device files, a driver folder and an environment like a GPU's, and faults on demand.

Every device file is /dev/null under another name. A line in the file `faults` of the state folder, with the number or
the id of a device, makes that device unhealthy until the line is gone; text after it is for whoever reads it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tiphys_component.app import StartupError
from tiphys_component.inotify import FolderWatch
from tiphys_component.proc import to_thread
from tiphys_device.nearness import nearest
from tiphys_sdk.device.plugin import Device, DeviceNode, DevicePlugin, Grant, Mount

GPU_RESOURCE = "nvidia.com/gpu"
DRIVER_FOLDER = "/usr/local/nvidia"
FAULTS = "faults"
MOST_DEVICES = 1024
_GPUS_PER_NUMA_NODE = 4
_FORM = re.compile(r"(?P<kind>gpu|[a-z0-9.-]+/[A-Za-z0-9._-]+):(?P<count>[0-9]+)(x(?P<model>[A-Za-z0-9._-]+))?")


@dataclass(frozen=True, slots=True)
class Simulation:
    """What is simulated."""

    resource: str
    count: int
    model: str

    @property
    def file_name(self) -> str:
        """How device files are named, before their number."""
        return "nvidia" if self.resource == GPU_RESOURCE else self.resource.rpartition("/")[2]

    @property
    def device_class(self) -> str:
        """What kind of device it is, as names of claimed devices begin."""
        return self.resource.rpartition("/")[2].lower()


def parse_simulation(text: str) -> Simulation:
    """KIND:N or KIND:NxMODEL; the kind is gpu or a whole resource name. Raises ValueError."""
    match = _FORM.fullmatch(text)
    if match is None or not 1 <= int(match["count"]) <= MOST_DEVICES:
        raise ValueError(f"{text!r} is no simulation; write gpu:8, gpu:8xH100 or vendor.example/thing:4")
    resource = GPU_RESOURCE if match["kind"] == "gpu" else match["kind"]
    return Simulation(resource, int(match["count"]), match["model"] or "H100")


def device_id(number: int) -> str:
    """The id of a simulated device, the same at every start."""
    return f"GPU-fake-{number}"


def devices_of(simulation: Simulation, faulty: Collection[str]) -> tuple[Device, ...]:
    """All devices; those named among the faulty by number or id are unhealthy. Pure."""
    return tuple(
        Device(
            device_id(number),
            healthy=not {str(number), device_id(number)} & set(faulty),
            numa_nodes=(number // _GPUS_PER_NUMA_NODE,),
        )
        for number in range(simulation.count)
    )


def parse_faults(text: str) -> frozenset[str]:
    """The first word of each line, without a colon that follows it. Pure."""
    return frozenset(words[0].rstrip(":") for line in text.splitlines() if (words := line.split()))


class SimulatedPlugin(DevicePlugin):
    """Simulated devices of one resource."""

    def __init__(self, simulation: Simulation, state_dir: Path) -> None:
        self.resource = simulation.resource
        self._simulation = simulation
        self._state_dir = state_dir
        self._devices: Mapping[str, Device] = {}

    async def devices(self) -> AsyncGenerator[Sequence[Device]]:
        """All devices, and again when the faults change."""
        await to_thread(self._prepare)
        with FolderWatch(self._state_dir) as watch:
            while True:
                devices = devices_of(self._simulation, await to_thread(self._faults))
                self._devices = {device.id: device for device in devices}
                yield devices
                await watch.wait()

    async def allocate(self, ids: Sequence[str]) -> Grant:
        """Device files under their usual names, the driver folder, and which devices they are."""
        name = self._simulation.file_name
        numbers = [one.rpartition("-")[2] for one in ids]
        nodes = [DeviceNode("/dev/null", f"/dev/{name}{number}") for number in numbers]
        if self.resource != GPU_RESOURCE:
            return Grant(env={"TIPHYS_SIMULATED_DEVICES": ",".join(ids)}, nodes=nodes)
        nodes += [DeviceNode("/dev/null", f"/dev/{one}") for one in ("nvidiactl", "nvidia-uvm")]
        env = {"NVIDIA_VISIBLE_DEVICES": ",".join(ids), "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
        return Grant(env=env, nodes=nodes, mounts=[Mount(str(self._driver), DRIVER_FOLDER)])

    async def prefer(self, available: Sequence[str], must_include: Sequence[str], size: int) -> Sequence[str]:
        """Devices of one NUMA node, where it can be."""
        return nearest(self._devices, available, must_include, size)

    @property
    def _driver(self) -> Path:
        return self._state_dir / "driver"

    def _prepare(self) -> None:
        lib, programs = self._driver / "lib64", self._driver / "bin"
        for folder in (lib, programs):
            folder.mkdir(parents=True, exist_ok=True)
        (lib / "libcuda.so.1").write_text("simulated\n")
        program = programs / "nvidia-smi"
        program.write_text(
            f'#!/bin/sh\nfor id in $(echo "$NVIDIA_VISIBLE_DEVICES" | tr , " "); do\n'
            f'  echo "GPU $id: NVIDIA {self._simulation.model} (simulated)"\ndone\n'
        )
        program.chmod(0o755)

    def _faults(self) -> frozenset[str]:
        path = self._state_dir / FAULTS
        return parse_faults(path.read_text()) if path.exists() else frozenset()


def read_simulation(text: str, state_dir: Path) -> SimulatedPlugin:
    """The plugin that a flag asks for. Raises StartupError."""
    try:
        return SimulatedPlugin(parse_simulation(text), state_dir)
    except ValueError as err:
        raise StartupError(str(err), "correct --simulate") from err
