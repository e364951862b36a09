"""Loop devices for block volumes. They belong to the machine, not to a namespace: only our own are touched."""

from __future__ import annotations

from pathlib import Path

from tiphys_component.proc import run_command

_TIMEOUT_S = 10.0


async def ensure(image: Path, *, readonly: bool = False) -> Path:
    """The device over the image, made if there is none. Raises CommandError."""
    known = await devices_of(image)
    if known:
        return known[0]
    words = ["losetup", "--find", "--show", *(["--read-only"] if readonly else []), str(image)]
    made = await run_command(words, timeout_s=_TIMEOUT_S)
    return Path(made.stdout.decode().strip())


async def devices_of(image: Path) -> list[Path]:
    """The devices over the image."""
    found = await run_command(
        ["losetup", "--associated", str(image), "--noheadings", "--output", "NAME"], timeout_s=_TIMEOUT_S
    )
    return [Path(line.strip()) for line in found.stdout.decode().splitlines() if line.strip()]


async def grow(device: Path) -> None:
    """Has the device take over the size of its image."""
    await run_command(["losetup", "--set-capacity", str(device)], timeout_s=_TIMEOUT_S)


async def detach(image: Path) -> None:
    """No device over the image; one still in use goes when its last user does."""
    for device in await devices_of(image):
        await run_command(["losetup", "--detach", str(device)], timeout_s=_TIMEOUT_S)
