"""A service for tests of the zygote: says in a file who it is, then waits for its end."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

LOADED_BY = os.getpid()


def main(argv: Sequence[str]) -> int:
    """FILE [MODE]: mode "crash" ends at once with 3, "stubborn" ignores SIGTERM."""
    file, mode = Path(argv[0]), argv[1] if len(argv) > 1 else ""
    facts = {
        "pid": os.getpid(),
        "loaded_by": LOADED_BY,
        "session": os.getsid(0),
        "group": os.getpgid(0),
        "netns": os.readlink("/proc/self/ns/net"),
        "mntns": os.readlink("/proc/self/ns/mnt"),
        "cgroups": Path("/proc/self/cgroup").read_text(),
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
    }
    part = file.with_suffix(".part")
    part.write_text(json.dumps(facts))
    part.rename(file)
    sys.stdout.write("toy says hello\n")
    if mode == "crash":
        return 3
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()
