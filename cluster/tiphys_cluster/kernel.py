"""System calls that Python 3.11 has no face for: setns, mount, prctl. Only for short-lived or forked children.

setns changes the calling thread, and into a mount namespace it is refused to a process with several threads.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20
MNT_DETACH = 2
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
CAP_SYS_RESOURCE = 24


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def enter_namespaces(*, netns: str = "", mntns: str = "") -> None:
    """Move the calling process into the namespaces behind these files; the mount namespace last, as it hides the files.

    The working directory becomes the root. Raises OSError naming the file.
    """
    opened = [(path, kind, os.open(path, os.O_RDONLY | os.O_CLOEXEC)) for path, kind in _wanted(netns, mntns)]
    try:
        for path, kind, descriptor in opened:
            _check(_libc().setns(descriptor, kind), f"enter namespace {path}")
    finally:
        for _, _, descriptor in opened:
            os.close(descriptor)


def _wanted(netns: str, mntns: str) -> list[tuple[str, int]]:
    return [(path, kind) for path, kind in ((netns, CLONE_NEWNET), (mntns, CLONE_NEWNS)) if path]


def mount(source: str, target: Path, flags: int) -> None:
    """mount(2) without a file system type: bind mounts and changes of propagation. Raises OSError."""
    _check(_libc().mount(source.encode(), os.fsencode(target), None, flags, None), f"mount {target}")


def unmount_detached(target: str) -> None:
    """umount2(2) with MNT_DETACH; what is not mounted is left alone. Raises OSError for anything else."""
    try:
        _check(_libc().umount2(os.fsencode(target), MNT_DETACH), f"unmount {target}")
    except OSError as err:
        if err.errno not in (22, 2):  # EINVAL: not a mount point; ENOENT
            raise


def set_process_name(name: str) -> None:
    """What ps and top show as the command, at most 15 bytes. Raises OSError."""
    _check(_libc().prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0), "prctl PR_SET_NAME")


def set_command_line(text: str) -> None:
    """Write over the memory of the process's arguments, which is what ps shows as its command line.

    Cut to the room that the original arguments took. The kernel offers PR_SET_MM for it, but that wants a capability.
    """
    fields = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()
    start, end = int(fields[45]), int(fields[46])
    data = text.encode()[: max(0, end - start - 1)]
    ctypes.memmove(start, data.ljust(end - start, b"\0"), end - start)


def become_subreaper() -> None:
    """Have orphaned descendants given to this process instead of process 1, which in a container may not reap."""
    _check(_libc().prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl PR_SET_CHILD_SUBREAPER")


def has_capability(number: int) -> bool:
    """Whether this process has the capability in its effective set."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False
