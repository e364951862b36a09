"""How a zygote is started, by `up` and by the keeper alike."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tiphys_cluster.layout import Layout

# One thread in numpy's BLAS: the zygote must have no other, and its children would miss them.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def zygote_argv(layout: Layout) -> tuple[str, str, str, str]:
    """The arguments of the cluster's zygote, and of its keeper: socket, records, record of itself, log."""
    paths = (layout.zygote_socket, layout.children, layout.zygote_pid, layout.log("zygote"))
    return (str(paths[0]), str(paths[1]), str(paths[2]), str(paths[3]))


def spawn_zygote(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a zygote as a process of its own session, which outlives the caller."""
    log = Path(argv[3])
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "tiphys_cluster.zygote", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env={**os.environ, **_ENVIRONMENT},
            start_new_session=True,
        )
