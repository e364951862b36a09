"""The cgroups under which pods lie: ROOT/kubepods[/burstable|/besteffort]/podUID, as Kubernetes lays them out.

The runtime makes the groups on its way to a container's own; nobody but us takes a pod's away. Where no hierarchy can
be written the parent is left to the runtime.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_kubelet.pod_spec import qos_class

CGROUP_MOUNT = Path("/sys/fs/cgroup")
_TIERS = {"Guaranteed": "", "Burstable": "/burstable", "BestEffort": "/besteffort"}


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Names and removes the groups of pods below a root such as / or /cluster/node."""

    root: str = "/"
    mount: Path = CGROUP_MOUNT

    def is_usable(self) -> bool:
        """Some hierarchy can be written."""
        return any(os.access(path, os.W_OK) for path in self._hierarchies())

    def parent(self, pod: Pod) -> str:
        """The group under which the runtime is to put the pod's containers."""
        base = self.root.rstrip("/")
        return f"{base}/kubepods{_TIERS[qos_class(pod)]}/pod{pod.metadata.uid}"

    def release(self, pod: Pod) -> None:
        """Removes the group of a pod that is gone; one that still has a process stays. Blocks for microseconds."""
        for hierarchy in self._hierarchies():
            _remove_tree(hierarchy / self.parent(pod).lstrip("/"))

    def _hierarchies(self) -> list[Path]:
        """With version 2 the mount itself; with version 1 one folder a controller."""
        if (self.mount / "cgroup.controllers").exists():
            return [self.mount]
        if not self.mount.is_dir():
            return []
        return [path for path in self.mount.iterdir() if path.is_dir() and not path.is_symlink()]


def _remove_tree(group: Path) -> None:
    try:
        children = [path for path in group.iterdir() if path.is_dir()]
    except OSError:
        return  # the hierarchy never had the group, or it is gone
    for child in children:
        _remove_tree(child)
    try:
        group.rmdir()
    except OSError:
        return  # a process is still dying in it; the next pod's end, or the cluster's, takes it away


def can_lower_oom_score(status: Path = Path("/proc/self/status")) -> bool:
    """This process has CAP_SYS_RESOURCE, so containers may be given a lower oom_score_adj than ours."""
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> 24 & 1)
    return False
