"""Waiting for a file to change, by the kernel's inotify."""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path
from types import TracebackType

_MODIFY, _MOVED_TO, _CREATE = 0x2, 0x80, 0x100


class FileWatch:
    """Tells of changes in a directory; an async context manager. Without inotify it only ever times out."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._handle = -1
        self._changed = asyncio.Event()

    async def __aenter__(self) -> FileWatch:
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._handle >= 0:
            libc.inotify_add_watch(self._handle, os.fsencode(self._directory), _MODIFY | _MOVED_TO | _CREATE)
            asyncio.get_running_loop().add_reader(self._handle, self._on_change)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle >= 0:
            asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)

    async def wait(self, timeout_s: float) -> None:
        """Returns after a change since the last call, or when the time is up."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    def _on_change(self) -> None:
        os.read(self._handle, 64 * 1024)
        self._changed.set()
