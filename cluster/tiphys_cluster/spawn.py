"""How a zygote is started, by `up` and by the keeper alike."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tiphys_cluster import cgroups
from tiphys_cluster.layout import Layout

# One thread in numpy's BLAS: the zygote must have no other, and its children would miss them.
_START_TIMEOUT_S = 15.0
# No fork handlers in grpc: every fork here comes before its use, or is followed by exec at once.
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "GRPC_ENABLE_FORK_SUPPORT": "0",
    "PYTHONUNBUFFERED": "1",
}


def zygote_argv(layout: Layout) -> tuple[str, str, str, str, str]:
    """The arguments of the cluster's zygote, and of its keeper: socket, records, record of itself, log, cgroup."""
    tracking = cgroups.choose_tracking(cgroups.read_hierarchies()).root
    cgroup = cgroups.process_group(str(tracking), layout.cgroup, "zygote")
    return (
        str(layout.zygote_socket),
        str(layout.children),
        str(layout.zygote_pid),
        str(layout.log("zygote")),
        cgroup,
    )


def spawn_zygote(argv: Sequence[str]) -> bool:
    """Start a zygote that outlives the caller; whether one serves now. Blocks until its socket is there."""
    log = Path(argv[3])
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        # The process started here forks the zygote, says by its exit code how that went, and is gone.
        started = subprocess.run(
            [sys.executable, "-m", "tiphys_cluster.zygote", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env={**os.environ, **_ENVIRONMENT},
            start_new_session=True,
            timeout=_START_TIMEOUT_S,
            check=False,
        )
    return started.returncode == 0
