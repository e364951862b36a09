"""The file that events are written to, one line of JSON each, put aside when it is full. Called in one thread at once.

Names and order are those of kube-apiserver's log: audit.log beside audit-2026-01-31T12-00-00.000.log.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO

_MEGABYTE = 1024 * 1024
STANDARD_OUTPUT = "-"


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a file is put aside and an old one deleted; 0 is never."""

    max_size_mb: int = 100
    max_age_days: int = 0
    max_backups: int = 0


class LogFile:
    """A file that lines are added to. path "-" is standard output, which is never put aside."""

    def __init__(self, path: str, rotation: Rotation, now: Callable[[], datetime]) -> None:
        self._path = Path(path)
        self._is_stdout = path == STANDARD_OUTPUT
        self._rotation = rotation
        self._now = now
        self._file: BinaryIO | None = None
        self._size = 0

    def open(self) -> None:
        """Open the file, and its folder if that is missing. Raises OSError."""
        if self._is_stdout:
            self._file = sys.stdout.buffer
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Who reads the log reads names, addresses and perhaps bodies: it is for its owner only.
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._file = os.fdopen(handle, "ab", buffering=0)
        self._size = self._path.stat().st_size

    def write(self, lines: list[bytes]) -> None:
        """Add lines, each with its end. Raises OSError; what was not written then is lost."""
        batch: list[bytes] = []
        for line in lines:
            if self._is_full(len(line)):
                self._flush(batch)
                batch = []
                self._rotate()
            batch.append(line)
            self._size += len(line)
        self._flush(batch)

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self._file is not None and not self._is_stdout:
            self._file.close()
        self._file = None

    def _is_full(self, more: int) -> bool:
        limit = self._rotation.max_size_mb * _MEGABYTE
        return bool(limit) and not self._is_stdout and self._size > 0 and self._size + more > limit

    def _flush(self, lines: list[bytes]) -> None:
        if not lines:
            return
        if self._file is None:
            self.open()
        assert self._file is not None
        rest = memoryview(b"".join(lines))
        while rest:
            rest = rest[self._file.write(rest) :]
        if self._is_stdout:
            self._file.flush()

    def _rotate(self) -> None:
        self.close()
        now = self._now()
        stamp = f"{now:%Y-%m-%dT%H-%M-%S}.{now.microsecond // 1000:03d}"
        aside = self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}")
        number = 1
        while aside.exists():
            # Two within a millisecond: none may write over the other.
            aside = self._path.with_name(f"{self._path.stem}-{stamp}-{number:03d}{self._path.suffix}")
            number += 1
        self._path.replace(aside)
        self._size = 0
        self.open()
        self._forget_old(now)

    def _forget_old(self, now: datetime) -> None:
        backups = sorted(self._path.parent.glob(f"{self._path.stem}-*{self._path.suffix}"), reverse=True)
        keep = self._rotation.max_backups
        oldest = now - timedelta(days=self._rotation.max_age_days)
        for index, backup in enumerate(backups):
            is_old = self._rotation.max_age_days and backup.stat().st_mtime < oldest.timestamp()
            if (keep and index >= keep) or is_old:
                backup.unlink(missing_ok=True)
