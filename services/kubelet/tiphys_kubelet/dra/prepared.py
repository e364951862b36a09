"""What drivers have prepared for claims, and the file that keeps it while the kubelet is away.

A claim is noted before its drivers are asked: whatever a crash leaves half done is asked to be undone later.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tiphys_apimachinery.resource_claims import is_covered

FILE_NAME: Final = "dra_manager_state"


class CorruptState(Exception):
    """The file does not hold what was written."""


@dataclass(frozen=True, slots=True)
class PreparedDevice:
    """A device that is ready: requests it was given for, and the names by which the runtime knows it."""

    pool: str
    device: str
    requests: tuple[str, ...]
    cdi_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PreparedClaim:
    """A claim on this node. drivers are all that serve it; devices by driver hold those that have answered."""

    namespace: str
    name: str
    uid: str
    pods: frozenset[str]
    drivers: tuple[str, ...]
    devices: Mapping[str, tuple[PreparedDevice, ...]]

    @property
    def is_ready(self) -> bool:
        """All drivers have answered."""
        return all(driver in self.devices for driver in self.drivers)

    def with_pod(self, uid: str) -> PreparedClaim:
        """The same for one pod more."""
        return replace(self, pods=self.pods | {uid})

    def without_pod(self, uid: str) -> PreparedClaim:
        """The same for one pod less."""
        return replace(self, pods=self.pods - {uid})

    def with_devices(self, driver: str, devices: Iterable[PreparedDevice]) -> PreparedClaim:
        """The same after a driver's answer."""
        return replace(self, devices={**self.devices, driver: tuple(devices)})

    def cdi_ids(self, request: str) -> Iterator[str]:
        """The runtime's names of the devices of a request, or of all where it is empty."""
        for driver in self.drivers:
            for device in self.devices.get(driver, ()):
                if not request or not device.requests or any(is_covered(one, (request,)) for one in device.requests):
                    yield from device.cdi_ids


def encode(claims: Iterable[PreparedClaim]) -> bytes:
    """The file's content."""
    data = [
        {
            "Namespace": claim.namespace,
            "ClaimName": claim.name,
            "ClaimUID": claim.uid,
            "PodUIDs": sorted(claim.pods),
            "DriverState": {
                driver: None
                if (devices := claim.devices.get(driver)) is None
                else [
                    {
                        "PoolName": one.pool,
                        "DeviceName": one.device,
                        "RequestNames": list(one.requests),
                        "CDIDeviceIDs": list(one.cdi_ids),
                    }
                    for one in devices
                ]
                for driver in claim.drivers
            },
        }
        for claim in sorted(claims, key=lambda claim: claim.uid)
    ]
    return json.dumps({"Claims": data, "Checksum": _checksum(data)}).encode()


def decode(content: bytes) -> list[PreparedClaim]:
    """What the content says. Raises CorruptState."""
    try:
        told = json.loads(content)
        if told["Checksum"] != _checksum(told["Claims"]):
            raise CorruptState("the checksum does not fit the content")
        return [_claim(entry) for entry in told["Claims"]]
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise CorruptState(f"not the state of claims: {err!r}") from err


def read(path: Path) -> list[PreparedClaim]:
    """What the file says; nothing where there is none. Raises CorruptState and OSError. Blocks."""
    try:
        return decode(path.read_bytes())
    except FileNotFoundError:
        return []


def _claim(entry: Mapping[str, Any]) -> PreparedClaim:
    states = entry["DriverState"]
    return PreparedClaim(
        entry["Namespace"],
        entry["ClaimName"],
        entry["ClaimUID"],
        frozenset(entry["PodUIDs"]),
        tuple(states),
        {
            driver: tuple(
                PreparedDevice(
                    one["PoolName"], one["DeviceName"], tuple(one["RequestNames"]), tuple(one["CDIDeviceIDs"])
                )
                for one in devices
            )
            for driver, devices in states.items()
            if devices is not None
        },
    )


def _checksum(data: object) -> int:
    return zlib.crc32(json.dumps(data, sort_keys=True).encode())
