"""Stopping a cluster: whatever is left of it, found by its records, its cgroup, its namespaces and its mounts.

Each step looks at the machine, not at what an earlier step believed, so that it works after any crash, on half-made
clusters, and twice. Containers are killed as a power cut would; the home keeps the data unless it is to be deleted.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal

from tiphys_cluster import cgroups, claims, network
from tiphys_cluster.control import ZygoteClient, ZygoteError, read_zygote
from tiphys_cluster.errors import ClusterError, NotRunningError
from tiphys_cluster.layout import Layout
from tiphys_cluster.loops import detach_below
from tiphys_cluster.mounts import unmount_below
from tiphys_cluster.processes import ProcessId, processes_in_namespaces
from tiphys_cluster.progress import Progress
from tiphys_cluster.settings import Settings
from tiphys_component.clock import Clock

_SHUTDOWN_TIMEOUT_S = 40.0
_KILL_TIMEOUT_S = 15.0
_STEP_S = 0.02


class Teardown:
    """One stop of one cluster."""

    def __init__(self, layout: Layout, settings: Settings, *, clock: Clock, progress: Progress) -> None:
        self._layout = layout
        self._settings = settings
        self._clock = clock
        self._progress = progress

    async def run(self, *, delete_home: bool) -> None:
        """Stop everything and take it away. Raises ClusterError when something resists."""
        network.check_no_namesake(self._layout)
        with claims.cluster_lock(self._layout):
            await self._run(delete_home=delete_home)

    async def _run(self, *, delete_home: bool) -> None:
        self._progress.step("stopping components")
        await self._shut_zygote_down()
        self._progress.step("stopping containers")
        await self._kill_rest()
        self._progress.step("removing mounts, network and cgroups")
        self._unmount()
        detach_below(self._layout.home)
        await network.remove_legs(self._layout)
        await self._remove_cgroups()
        self._remove_mount_points()
        if delete_home:
            self._progress.step(f"deleting {self._layout.home}")
            shutil.rmtree(self._layout.home, ignore_errors=True)
        # The claim last: until here the cluster is not free to be started.
        shutil.rmtree(self._layout.run, ignore_errors=True)

    async def _shut_zygote_down(self) -> None:
        process = read_zygote(self._layout)
        if process is None:
            return
        with contextlib.suppress(ZygoteError, NotRunningError):
            async with await ZygoteClient.connect(self._layout.zygote_socket) as zygote:
                await zygote.call("shutdown", timeout_s=_SHUTDOWN_TIMEOUT_S)
        # Killed rather than waited for: it has nothing left to do, or it hangs.
        process.send(signal.SIGKILL)

    async def _kill_rest(self) -> None:
        deadline = self._clock.monotonic() + _KILL_TIMEOUT_S
        while True:
            left = self._kill_round()
            if not left:
                return
            if self._clock.monotonic() > deadline:
                raise ClusterError(
                    f"processes {sorted(left)} do not end", "Look at them with ps; then run tiphys down again."
                )
            await self._clock.sleep(_STEP_S)

    def _kill_round(self) -> set[int]:
        left: set[int] = set()
        for tree in cgroups.trees(self._layout.cgroup):
            left |= cgroups.kill_tree(tree)
        for process in (*self._recorded(), *self._in_namespaces()):
            if process.is_alive():
                process.send(signal.SIGKILL)
                left.add(process.pid)
        return left

    def _recorded(self) -> list[ProcessId]:
        found: list[ProcessId] = []
        for path in (*self._layout.children.glob("*.json"), self._layout.zygote_pid):
            with contextlib.suppress(OSError, ValueError, KeyError):
                record = json.loads(path.read_text())
                found.append(ProcessId(record["pid"], record["start"]))
        return found

    def _in_namespaces(self) -> list[ProcessId]:
        found: list[ProcessId] = []
        for kind, suffix in (("net", "net"), ("mnt", "mnt")):
            inodes = self._namespace_inodes(suffix)
            if inodes:
                found += processes_in_namespaces(inodes, kind)
        return found

    def _namespace_inodes(self, suffix: str) -> set[int]:
        # A file on which no namespace is mounted is an ordinary one, whose inode says nothing.
        held = [path for path in self._layout.namespaces.glob(f"*.{suffix}") if network.is_held(path)]
        return {path.stat().st_ino for path in held}

    def _unmount(self) -> None:
        try:
            unmount_below(self._layout.run, self._layout.home)
        except OSError as err:
            raise ClusterError(f"cannot unmount: {err}", "Run tiphys down again.") from err

    def _remove_mount_points(self) -> None:
        # Made for the nodes to mount over. Removing one would take that mount away from another cluster's node.
        if not network.legs():
            for directory in network.SHARED_DIRECTORIES:
                with contextlib.suppress(OSError):
                    directory.rmdir()

    async def _remove_cgroups(self) -> None:
        deadline = self._clock.monotonic() + _KILL_TIMEOUT_S
        left = cgroups.trees(self._layout.cgroup)
        while left := [tree for tree in left if not cgroups.remove_tree(tree)]:
            if self._clock.monotonic() > deadline:
                names = ", ".join(str(tree) for tree in left)
                raise ClusterError(f"cgroups can't be removed: {names}", "Run tiphys down again.")
            await self._clock.sleep(_STEP_S)
