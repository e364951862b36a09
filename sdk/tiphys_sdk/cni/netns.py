"""Network namespaces: telling them apart, and working inside of one."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")


def identity(path: str) -> tuple[int, int]:
    """Device and inode: equal for two paths of one namespace."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def own_identity() -> tuple[int, int]:
    """The identity of this thread's network namespace."""
    return identity("/proc/thread-self/ns/net")


@contextmanager
def inside(netns_fd: int) -> Iterator[None]:
    """Moves this thread into the namespace for a moment; processes started there are in it too.

    Never awaits: the thread is the caller's alone. A thread that can't come back must not serve anyone else, so it
    ends with its process.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(netns_fd)
        try:
            yield
        finally:
            try:
                _setns(home)
            except OSError:
                os.abort()
    finally:
        os.close(home)
