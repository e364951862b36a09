"""Loop devices for block volumes. They belong to the machine, not to a namespace: only our own are touched.

The command is started from a thread, by vfork. uvloop forks, which runs the handlers that gRPC leaves for forks; in the
child of a busy server these were seen to crash before the command began.
"""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from tiphys_sdk.csi.status import internal

_TIMEOUT_S = 10.0


async def ensure(image: Path) -> Path:
    """The device over the image, made if there is none. Raises CsiError."""
    known = await devices_of(image)
    return known[0] if known else Path(await _losetup("--find", "--show", str(image)))


async def devices_of(image: Path) -> list[Path]:
    """The devices over the image. Raises CsiError."""
    found = await _losetup("--associated", str(image), "--noheadings", "--output", "NAME")
    return [Path(line.strip()) for line in found.splitlines() if line.strip()]


async def grow(device: Path) -> None:
    """Has the device take over the size of its image. Raises CsiError."""
    await _losetup("--set-capacity", str(device))


async def detach(image: Path) -> None:
    """No device over the image; one still in use goes when its last user does. Raises CsiError."""
    for device in await devices_of(image):
        await _losetup("--detach", str(device))


async def _losetup(*words: str) -> str:
    return await asyncio.to_thread(_run, ["losetup", *words])


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as err:
        raise internal(str(err)) from err
    if done.returncode != 0:
        raise internal(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()
