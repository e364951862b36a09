"""Processes by identity: a process number alone may by now belong to somebody else, with its start time it can't."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process for as long as it lives; start is in clock ticks since boot (proc(5), field 22 of stat)."""

    pid: int
    start: int

    def is_alive(self) -> bool:
        """Whether this very process runs; a zombie does not."""
        return _read_start(self.pid) == self.start

    def send(self, number: signal.Signals) -> None:
        """Signal this very process; one that is gone is left alone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            # Looked at through the descriptor: from here on the number can't be given to another process.
            if self.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def _read_start(pid: int) -> int | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in brackets and may hold anything, brackets too.
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def identify(pid: int) -> ProcessId | None:
    """The identity of the process that has this number now, None when none does."""
    start = _read_start(pid)
    return None if start is None else ProcessId(pid, start)


def processes_in_namespaces(inodes: set[int], kind: str) -> list[ProcessId]:
    """Every process whose namespace of this kind ("net", "mnt") is one of those, by inode number."""
    found: list[ProcessId] = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if (entry / "ns" / kind).stat().st_ino in inodes and (process := identify(int(entry.name))):
                found.append(process)
    return found


def read_record(path: Path) -> ProcessId | None:
    """The process named in a record, if it runs."""
    try:
        record = json.loads(path.read_text())
        process = ProcessId(record["pid"], record["start"])
    except (OSError, ValueError, KeyError):
        return None
    return process if process.is_alive() else None
