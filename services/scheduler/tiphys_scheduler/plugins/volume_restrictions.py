"""VolumeRestrictions: what one pod uses alone, and disks that one node or one writer may have at a time."""

from __future__ import annotations

import numpy as np

from tiphys_scheduler.columns import Columns, Mask, Rows
from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.pod_info import PodInfo
from tiphys_scheduler.pod_volumes import conflicts
from tiphys_scheduler.volumes import Volumes

DISK_CONFLICT = "node(s) had no available disk"
USED_ELSEWHERE = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"


class VolumeRestrictions:
    """Filter. A claim with access mode ReadWriteOncePod serves one pod of the whole cluster.

    A disk that pods name themselves is used once on a node, unless all only read it; once this was NoDiskConflict.
    """

    name = "VolumeRestrictions"
    events = frozenset({Event.NODE_ADDED, Event.POD_DELETED, Event.CLAIM})

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """Only for pods with disks, or with such a claim that another pod has."""
        needs = pod.needs
        if not needs.disks and not needs.claims:
            return False
        return bool(needs.disks and nodes.disks) or self._is_refused(pod)

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """Nodes where nobody has the disks; none where the claim is taken."""
        found = np.ones(nodes.present[rows].shape, np.bool_)
        for wanted in pod.needs.disks:
            for disk in conflicts(wanted, nodes.disks):
                found &= nodes.disks[disk][rows] == 0
        return found & (not self._is_refused(pod))

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """The claim first."""
        return (USED_ELSEWHERE,) if self._is_refused(pod) else (DISK_CONFLICT,)

    def _is_refused(self, pod: PodInfo) -> bool:
        return any(self._is_taken(key, pod.key) for key in pod.needs.claims)

    def _is_taken(self, key: str, pod: str) -> bool:
        claim = self._volumes.claims.get(key)
        return claim is not None and "ReadWriteOncePod" in claim.access_modes and self._volumes.used_by_others(key, pod)
