"""Tells when the entries of a folder change, by the kernel's inotify and without looking again and again.

What changed is not told: whoever watches looks at the folder anew, so that nothing depends on events that were lost.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path
from types import TracebackType
from typing import Self

# Source: <sys/inotify.h>.
_WRITTEN, _MOVED, _CREATE, _DELETE = 0x8, 0x40 | 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _ONLY_DIRECTORY = 0x400, 0x800, 0x0100_0000
_MASK = _WRITTEN | _MOVED | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLY_DIRECTORY
_IGNORED = 0x8000
_HEADER_SIZE = 16
_READ_SIZE = 65536


class FolderWatch:
    """Watches folders while its context is open; `wait` returns after entries came, went, were written or renamed.

    Entering raises OSError where a folder can't be watched, as when there is none.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._changed = asyncio.Event()
        self._gone = False
        self._fd = -1

    def __enter__(self) -> Self:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise _last_error(self._folders[0])
        for folder in self._folders:
            if libc.inotify_add_watch(self._fd, os.fsencode(folder), ctypes.c_uint32(_MASK)) < 0:
                err = _last_error(folder)
                os.close(self._fd)
                raise err
        asyncio.get_running_loop().add_reader(self._fd, self._read)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    async def wait(self) -> None:
        """Returns when something changed since the last call. Raises FileNotFoundError when a folder is gone."""
        await self._changed.wait()
        self._changed.clear()
        if self._gone:
            raise FileNotFoundError(f"gone: one of {', '.join(map(str, self._folders))}")

    def _read(self) -> None:
        data = os.read(self._fd, _READ_SIZE)
        offset = 0
        while offset < len(data):
            mask = int.from_bytes(data[offset + 4 : offset + 8], "little")
            self._gone = self._gone or bool(mask & (_IGNORED | _DELETE_SELF | _MOVE_SELF))
            offset += _HEADER_SIZE + int.from_bytes(data[offset + 12 : offset + 16], "little")
        self._changed.set()


def _last_error(folder: Path) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), str(folder))
