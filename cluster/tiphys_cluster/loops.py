"""Loop devices over files of a cluster, as CSI drivers make for block volumes; the machine's, not a namespace's.

What a killed driver left would keep its file, and with it the disk's space, until the machine ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

_BLOCK_DEVICES = Path("/sys/block")
# linux/loop.h: LOOP_CLR_FD. A device in use is let go when its last user is gone.
_LOOP_CLR_FD = 0x4C01


def devices_below(directory: Path, block_devices: Path = _BLOCK_DEVICES) -> list[str]:
    """The names of the loop devices whose files lie below the directory."""
    found = []
    for backing in sorted(block_devices.glob("loop*/loop/backing_file")):
        with contextlib.suppress(OSError):
            # A file that was deleted meanwhile has that written behind its name.
            if Path(backing.read_text().rstrip("\n")).is_relative_to(directory):
                found.append(backing.parents[1].name)
    return found


def detach_below(directory: Path) -> list[str]:
    """Detach every loop device whose file lies below the directory; their names. Others' are left alone."""
    detached = devices_below(directory)
    for name in detached:
        with contextlib.suppress(OSError):
            descriptor = os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(descriptor, _LOOP_CLR_FD)
            finally:
                os.close(descriptor)
    return detached
