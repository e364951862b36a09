"""Watches the zygote, which watches it: whichever is killed, the other brings it back.

A child of the zygote like any service, but forked before anything is imported, so it is small. It hears of the zygote's
end through a pidfd. An orderly end stops the keeper first, so an end it sees was none, and a new zygote is started,
which adopts everything, the keeper too. (A parent above the zygote was the other way: nobody would have watched it.)
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from pathlib import Path

from tiphys_cluster.processes import ProcessId, read_record
from tiphys_cluster.spawn import spawn_zygote
from tiphys_component.log import get_logger

_SETTLE_MS = 50


def watch(process: ProcessId) -> None:
    """Return when the process has ended."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if process.is_alive():
            select.select([descriptor], [], [])
    finally:
        os.close(descriptor)


def main(argv: Sequence[str]) -> int:
    """SOCKET RECORDS PIDFILE LOG: keep a zygote with these arguments alive; returns only when it can't be started."""
    pid_file = Path(argv[2])
    log = get_logger("keeper")
    while True:
        process = read_record(pid_file)
        if process is not None:
            watch(process)
            log.warning("zygote ended, will start again", pid=process.pid)
        spawned = spawn_zygote(argv)
        while spawned.poll() is None and read_record(pid_file) is None:
            select.select([], [], [], _SETTLE_MS / 1000)
        if spawned.poll() not in (None, 0):
            log.error("zygote did not start", code=spawned.returncode)
            return 1
