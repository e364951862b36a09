"""What a process has used, as the kernel counts it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from time import clock_gettime, perf_counter

# Where measured interpreters keep compiled modules, as an installation does; nothing is written into the tree.
_BYTECODE = Path(gettempdir()) / "tiphys-bench-bytecode"
# Which of a process's clocks: what its threads ran, as the scheduler counts it. Source: linux/posix-timers.h.
_CPUCLOCK_SCHED = 2


def environment() -> dict[str, str]:
    """What a measured process is started with: it may keep compiled modules, whatever holds for this one."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**own, "PYTHONPYCACHEPREFIX": str(_BYTECODE), "OPENBLAS_NUM_THREADS": "1"}


def cpu_s(pid: int) -> float:
    """User and system time of all threads of a process so far, of those too that have ended, to the nanosecond.

    It is the clock that clock_getcpuclockid(3) names: /proc/PID/stat counts in ticks of 10 ms.
    """
    return clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)


def rss_mb(pid: int) -> float:
    """Resident memory in MB of a million bytes."""
    return _status_mb(pid, "VmRSS")


def _status_mb(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"process {pid} has no memory: it has ended")


def forget_peak(pid: int) -> None:
    """Let peak_rss_mb begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_rss_mb(pid: int) -> float:
    """The most resident memory since the start of the process, or since forget_peak."""
    return _status_mb(pid, "VmHWM")


@dataclass(slots=True)
class Spent:
    """What a block cost: CPU of each process in the order given, and time on the wall."""

    cpu: tuple[float, ...] = ()
    wall_s: float = 0.0


@contextmanager
def spending(*pids: int) -> Iterator[Spent]:
    """Measure the block; the figures are there after its end."""
    spent = Spent()
    before, began = [cpu_s(pid) for pid in pids], perf_counter()
    yield spent
    spent.wall_s = perf_counter() - began
    spent.cpu = tuple(cpu_s(pid) - was for pid, was in zip(pids, before, strict=True))
