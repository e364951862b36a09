"""Simulated devices for claims: a DRA driver whose devices are /dev/null under other names, told to the runtime by CDI.

Each claim has one file of CDI, made when it is prepared and removed when it is given up; so what is prepared outlives
this process, and giving up twice does no harm.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tiphys.api.resource.v1.resource_pb2 import ResourceClaim
from tiphys_component.proc import to_thread
from tiphys_device.simulated import Simulation
from tiphys_sdk.dra.driver import ClaimRef, DevicePool, DraDriver, Given, Prepared, Refusal, Version, make_device

CDI_DIR: Final = Path("/var/run/cdi")
CDI_VERSION: Final = "0.5.0"
MEMORY: Final = "80Gi"


class SimulatedDraDriver(DraDriver):
    """Devices that are not there, with the attributes index, model, uuid and driverVersion, and the capacity memory."""

    def __init__(self, name: str, node: str, simulation: Simulation, cdi_dir: Path = CDI_DIR) -> None:
        self.name = name
        self._node, self._simulation, self._folder = node, simulation, cdi_dir

    async def pools(self) -> AsyncIterator[Sequence[DevicePool]]:
        """One pool of the node's name."""
        simulation = self._simulation
        devices = [
            make_device(
                f"{simulation.device_class}-{number}",
                {
                    "index": number,
                    "model": simulation.model,
                    "uuid": f"{self._node}-{number}",
                    "driverVersion": Version("1.0.0"),
                },
                {"memory": MEMORY},
            )
            for number in range(simulation.count)
        ]
        yield [DevicePool(self._node, devices)]
        await asyncio.get_running_loop().create_future()

    async def prepare(self, claim: ResourceClaim, given: Sequence[Given]) -> Sequence[Prepared]:
        """Writes the claim's CDI file: device files, and an environment that names the devices."""
        known = {f"{self._simulation.device_class}-{number}" for number in range(self._simulation.count)}
        for one in given:
            if one.device not in known or one.pool != self._node:
                raise Refusal(f"there is no device {one.pool}/{one.device} on {self._node}")
        uid = claim.metadata.uid
        await to_thread(_write, self._path(uid), cdi_spec(self._kind, uid, given))
        return [Prepared(one, (f"{self._kind}={_cdi_name(uid, one.device)}",)) for one in given]

    async def unprepare(self, claim: ClaimRef) -> None:
        """Removes the claim's CDI file."""
        await to_thread(self._path(claim.uid).unlink, missing_ok=True)

    @property
    def _kind(self) -> str:
        return f"{self.name}/{self._simulation.device_class}"

    def _path(self, uid: str) -> Path:
        return self._folder / f"{self.name}-{uid}.json"


def cdi_spec(kind: str, uid: str, given: Sequence[Given]) -> Mapping[str, Any]:
    """The file of a claim: one device of CDI for each of its devices. Pure."""
    devices = {}
    for one in given:
        variable = re.sub(r"[^A-Z0-9]", "_", f"DRA_{one.device}".upper())
        edits = {
            "env": [f"{variable}={one.pool}/{one.device}", f"DRA_CLAIM={uid}"],
            "deviceNodes": [{"path": f"/dev/{one.device}", "hostPath": "/dev/null", "permissions": "rw"}],
        }
        devices[one.device] = {"name": _cdi_name(uid, one.device), "containerEdits": edits}
    return {"cdiVersion": CDI_VERSION, "kind": kind, "devices": list(devices.values())}


def _cdi_name(uid: str, device: str) -> str:
    return f"{uid}-{device}"


def _write(path: Path, spec: Mapping[str, Any]) -> None:
    """Replaces the file whole: the runtime reads the folder at any moment. Blocks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(json.dumps(spec, indent=1))
    draft.replace(path)
