"""The cluster's cgroup in every hierarchy: where its processes are put, counted, killed and cleared away.

Works on cgroup v2, on v1 and on the mix of both. Processes are tracked in one hierarchy: the v2 one where there is one,
because there a whole tree is killed by one write; pods also have cgroups in the others, made by the runtime.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tiphys_cluster.errors import ClusterError

# v1 hierarchies that put no limit on anything by themselves come first.
_V1_PREFERENCE = ("name=systemd", "pids", "freezer", "cpuacct", "memory", "cpu")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted cgroup hierarchy."""

    root: Path
    version: int
    controllers: tuple[str, ...] = ()


def parse_hierarchies(mountinfo: str) -> list[Hierarchy]:
    """The hierarchies in the text of /proc/self/mountinfo, each once."""
    found: dict[Path, Hierarchy] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        root = Path(left.split()[4])
        if kind == "cgroup2":
            found[root] = Hierarchy(root, 2)
        elif kind == "cgroup":
            names = tuple(sorted(set(options.split(",")) - {"rw", "ro", "xattr", "clone_children", "noprefix"}))
            found[root] = Hierarchy(root, 1, names)
    return list(found.values())


def read_hierarchies() -> list[Hierarchy]:
    """The hierarchies mounted here."""
    return parse_hierarchies(Path("/proc/self/mountinfo").read_text())


def choose_tracking(hierarchies: list[Hierarchy]) -> Hierarchy:
    """The hierarchy in which processes are tracked. Raises ClusterError when none is mounted."""

    def rank(hierarchy: Hierarchy) -> int:
        if hierarchy.version == 2:
            return 0
        ranks = [_V1_PREFERENCE.index(name) + 1 for name in hierarchy.controllers if name in _V1_PREFERENCE]
        return min(ranks, default=len(_V1_PREFERENCE) + 1)

    if not hierarchies:
        raise ClusterError("no cgroup file system is mounted", "Mount one: mount -t cgroup2 none /sys/fs/cgroup")
    return min(hierarchies, key=rank)


def process_group(tracking: str, cluster: str, process: str) -> str:
    """The cgroup of one supervised process; all are leaves, as v2 wants of groups with processes."""
    return f"{tracking}/{cluster}/system/{process}"


def create_group(directory: Path) -> None:
    """Make a cgroup for processes of ours; the parents on the way stay empty, as v2 demands."""
    directory.mkdir(parents=True, exist_ok=True)


def join(directory: Path) -> None:
    """Move the calling process into a cgroup, making it."""
    create_group(directory)
    (directory / "cgroup.procs").write_text("0")


def trees(name: str) -> list[Path]:
    """The cgroup of this name in each hierarchy that has it."""
    return [path for hierarchy in read_hierarchies() if (path := hierarchy.root / name).is_dir()]


def groups_below(tree: Path) -> Iterator[Path]:
    """Every cgroup of a tree, the deepest first, the tree itself last."""
    for directory, _, _ in os.walk(tree, topdown=False):
        yield Path(directory)


def pids_below(tree: Path) -> set[int]:
    """The processes in a tree."""
    pids: set[int] = set()
    for group in groups_below(tree):
        with contextlib.suppress(OSError):
            pids.update(int(line) for line in (group / "cgroup.procs").read_text().split())
    return pids


def kill_tree(tree: Path) -> set[int]:
    """SIGKILL every process in a tree once; the processes that were there. Call until it finds none."""
    pids = pids_below(tree)
    pids.discard(0)  # A process of another pid namespace has no number here.
    if not pids:
        return pids
    with contextlib.suppress(OSError):
        (tree / "cgroup.kill").write_text("1")
        return pids
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return pids


def remove_tree(tree: Path) -> bool:
    """Remove a tree without processes; whether it is gone. A group stays busy for a moment after its last process."""
    for group in groups_below(tree):
        with contextlib.suppress(OSError):
            group.rmdir()
    return not tree.exists()
