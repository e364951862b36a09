"""The file that keeps who holds which device while the kubelet is away.

Its form is that of Kubernetes' kubelet_internal_checkpoint, but for the checksum, which there is one of Go's memory.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiphys_component.log import get_logger
from tiphys_component.proc import to_thread
from tiphys_kubelet.resources.allocation import Holding, Slot

FILE_NAME = "kubelet_internal_checkpoint"
_NO_NUMA_NODE = "-1"


class CorruptCheckpoint(Exception):
    """The file does not hold what was written."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Who holds what, and the ids of the devices that plugins had told of, by resource."""

    holdings: Mapping[Slot, Holding] = field(default_factory=dict)
    registered: Mapping[str, Sequence[str]] = field(default_factory=dict)


def encode(checkpoint: Checkpoint) -> bytes:
    """The file's content."""
    entries = [
        {
            "PodUID": slot.pod_uid,
            "ContainerName": slot.container,
            "ResourceName": slot.resource,
            "DeviceIDs": {_NO_NUMA_NODE: list(held.devices)},
            "AllocResp": base64.b64encode(held.grant).decode(),
        }
        for slot, held in sorted(checkpoint.holdings.items())
    ]
    registered = {name: list(ids) for name, ids in checkpoint.registered.items()}
    data = {"PodDeviceEntries": entries, "RegisteredDevices": registered}
    return json.dumps({"Data": data, "Checksum": _checksum(data)}).encode()


def decode(content: bytes) -> Checkpoint:
    """What the content says. Raises CorruptCheckpoint."""
    try:
        told = json.loads(content)
        data = told["Data"]
        if told["Checksum"] != _checksum(data):
            raise CorruptCheckpoint("the checksum does not fit the content")
        holdings = dict(_holding(entry) for entry in data["PodDeviceEntries"] or ())
        return Checkpoint(holdings, {name: tuple(ids) for name, ids in (data["RegisteredDevices"] or {}).items()})
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as err:
        raise CorruptCheckpoint(f"not a checkpoint: {err!r}") from err


def _holding(entry: Mapping[str, Any]) -> tuple[Slot, Holding]:
    slot = Slot(entry["PodUID"], entry["ContainerName"], entry["ResourceName"])
    devices = tuple(device for ids in entry["DeviceIDs"].values() for device in ids)
    return slot, Holding(devices, base64.b64decode(entry["AllocResp"]))


def _checksum(data: object) -> int:
    return zlib.crc32(json.dumps(data, sort_keys=True).encode())


def read(path: Path) -> Checkpoint:
    """What the file says; nothing where there is none. Raises CorruptCheckpoint and OSError. Blocks."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Checkpoint()
    return decode(content)


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Replaces the file with this state. Raises OSError. Blocks."""
    replace_file(path, encode(checkpoint))


def replace_file(path: Path, content: bytes) -> None:
    """Replaces a file so that a crash at any moment leaves the old or the new one. Raises OSError. Blocks."""
    draft = path.with_name(f".{path.name}.new")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class CheckpointKeeper:
    """Writes the file when it is told to, one write at a time, each with the newest state; `run` must be running."""

    def __init__(self, path: Path, snapshot: Callable[[], Checkpoint]) -> None:
        self._path = path
        self._snapshot = snapshot
        self._wanted = asyncio.Event()
        self._waiters: list[asyncio.Future[None]] = []
        self._log = get_logger("kubelet.devices")

    def touch(self) -> None:
        """The state changed, and is to be written soon."""
        self._wanted.set()

    async def save(self) -> None:
        """Returns when the state of now is on the disk. Raises OSError."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._wanted.set()
        await waiter

    async def run(self) -> None:
        """Writes for ever."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            waiters, self._waiters = self._waiters, []
            try:
                await to_thread(write, self._path, self._snapshot())
            except OSError as err:
                self._log.error("device checkpoint can't be written", path=str(self._path), err=str(err))
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_exception(OSError(err.errno, f"device checkpoint can't be written: {err}"))
                continue
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
