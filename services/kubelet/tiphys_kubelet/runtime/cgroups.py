"""The cgroups under which pods lie: ROOT/kubepods[/burstable|/besteffort]/podUID, as Kubernetes lays them out.

We make a pod's group with the limits of the pod as a whole, the runtime makes its containers' below it, and nobody but
us takes a pod's away. Where no hierarchy can be written the parent is left to the runtime.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_kubelet.pod_spec import qos_class
from tiphys_kubelet.runtime.group_files import GroupFiles
from tiphys_kubelet.runtime.limits import Limits, pod_limits
from tiphys_kubelet.runtime.resources import MAX_SHARES, MIN_SHARES

CGROUP_MOUNT = Path("/sys/fs/cgroup")
_TIERS = {"Guaranteed": "", "Burstable": "/burstable", "BestEffort": "/besteffort"}


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Names and removes the groups of pods below a root such as / or /cluster/node."""

    root: str = "/"
    mount: Path = CGROUP_MOUNT

    def is_version_2(self) -> bool:
        """All controllers are in one hierarchy."""
        return (self.mount / "cgroup.controllers").exists()

    def is_usable(self) -> bool:
        """Some hierarchy can be written."""
        return any(os.access(path, os.W_OK) for path in self._hierarchies())

    def parent(self, pod: Pod) -> str:
        """The group under which the runtime is to put the pod's containers."""
        return f"{self._base}{_TIERS[qos_class(pod)]}/pod{pod.metadata.uid}"

    def release(self, pod: Pod) -> None:
        """Removes the group of a pod that is gone; one that still has a process stays. Blocks for microseconds."""
        for hierarchy in self._hierarchies():
            _remove_tree(hierarchy / self.parent(pod).lstrip("/"))
        with suppress(OSError):  # the tier may have been taken away with the node
            self._weigh_tier(pod)

    def pod_limits(self, pod: Pod) -> Limits | None:
        """What the pod's own group may use; None where there is no such group. Blocks for microseconds."""
        return self._files(self.parent(pod)).read(pod_limits(pod).cpu_shares)

    def set_pod_limits(self, pod: Pod, limits: Limits) -> None:
        """Makes the pod's own group and gives it its limits. Raises OSError. Blocks for microseconds."""
        self._files(self.parent(pod)).write(limits)
        self._weigh_tier(pod)

    def container_limits(self, pod_uid: str, container_id: str) -> Limits | None:
        """What a running container may use, as the kernel has it. Blocks for microseconds."""
        for tier in _TIERS.values():
            found = self._files(f"{self._base}{tier}/pod{pod_uid}/{container_id}").read()
            if found is not None:
                return found
        return None

    def memory_use(self, pod: Pod, container_id: str = "") -> int | None:
        """Bytes that can't be had back at once, of a container or the whole pod; None where nobody counts them."""
        return self._files(f"{self.parent(pod)}/{container_id}".rstrip("/")).memory_use()

    def _weigh_tier(self, pod: Pod) -> None:
        """Pods that request nothing weigh together as little as can be, Burstable ones what they request together.

        Without this a tier would weigh as much as a whole pod beside it. Raises OSError.
        """
        tier = _TIERS[qos_class(pod)]
        if not tier:
            return
        files, shares = self._files(f"{self._base}{tier}"), MIN_SHARES
        if tier == _TIERS["Burstable"]:
            shares = max(MIN_SHARES, min(MAX_SHARES, files.shares_below()))
        files.write(Limits(shares))

    def _files(self, group: str) -> GroupFiles:
        return GroupFiles(self.mount, group.lstrip("/"))

    @property
    def _base(self) -> str:
        return f"{self.root.rstrip('/')}/kubepods"

    def _hierarchies(self) -> list[Path]:
        """With version 2 the mount itself; with version 1 one folder a controller."""
        if self.is_version_2():
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
