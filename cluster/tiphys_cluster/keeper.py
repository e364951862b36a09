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
    """SOCKET RECORDS PIDFILE LOG CGROUP: keep a zygote alive; returns only when none can be started."""
    pid_file = Path(argv[2])
    log = get_logger("keeper")
    while True:
        process = read_record(pid_file)
        if process is not None:
            watch(process)
            log.warning("zygote ended, will start again", pid=process.pid)
        if not spawn_zygote(argv):
            log.error("zygote did not start")
            return 1
