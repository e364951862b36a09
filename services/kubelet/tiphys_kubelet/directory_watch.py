"""Waiting for something to come or go in a directory or below it, by the kernel's inotify."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE, _DELETE_SELF = 0x40, 0x80, 0x100, 0x200, 0x400
_MASK = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF
# Only where the kernel gives no inotify handle, as when the user's are used up.
_BLIND_LOOK_S = 1.0


class DirectoryWatch:
    """Follows a directory and all below it; an async context manager.

    `entries` looks anew and follows what it finds; a change that comes after it began ends the next `wait`. So who
    looks, waits and looks again misses nothing, whatever the kernel's queue lost.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._handle = -1
        self._changed = asyncio.Event()

    async def __aenter__(self) -> DirectoryWatch:
        self._handle = _libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._handle >= 0:
            asyncio.get_running_loop().add_reader(self._handle, self._on_change)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle >= 0:
            asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)

    def entries(self) -> Iterator[os.DirEntry[str]]:
        """Every entry at or below the root that is no directory; the root is made if it is gone. Blocks."""
        self._root.mkdir(parents=True, exist_ok=True)
        pending = [str(self._root)]
        while pending:
            directory = pending.pop()
            try:
                # Followed first and listed then: what comes in between is told twice, never not at all.
                if self._handle >= 0:
                    _libc().inotify_add_watch(self._handle, os.fsencode(directory), _MASK)
                with os.scandir(directory) as found:
                    for entry in found:
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(entry.path)
                        else:
                            yield entry
            except FileNotFoundError:
                # It went away meanwhile, and its parent tells of that.
                continue

    async def wait(self) -> None:
        """Returns after a change since the last return."""
        try:
            async with asyncio.timeout(None if self._handle >= 0 else _BLIND_LOOK_S):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    def _on_change(self) -> None:
        try:
            os.read(self._handle, 64 * 1024)
        except BlockingIOError:
            return
        self._changed.set()


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
