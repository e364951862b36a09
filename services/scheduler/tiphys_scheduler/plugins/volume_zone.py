"""VolumeZone: a volume that says its zone in labels is used in that zone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tiphys_scheduler.columns import Columns, Mask, Rows
from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.pod_info import PodInfo
from tiphys_scheduler.volumes import Volumes

ZONE_CONFLICT = "node(s) had no available volume zone"
# Source: kube-scheduler pkg/scheduler/framework/plugins/volumezone, in which the beta labels stand for the others too.
_LABELS = {
    "topology.kubernetes.io/zone": "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region": "failure-domain.beta.kubernetes.io/region",
}
_BETA = {beta: name for name, beta in _LABELS.items()}


class VolumeZone:
    """Filter. Nodes without any label of the kind pass, as in a cluster without zones."""

    name = "VolumeZone"
    events = frozenset({Event.NODE_ADDED, Event.NODE_LABELS, Event.CLAIM, Event.VOLUME, Event.STORAGE_CLASS})

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """Only for pods whose volumes have such labels."""
        return any(True for _ in self._wanted(pod))

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """Nodes in the zones and regions of all volumes."""
        has_any = np.zeros(nodes.rows, np.bool_)
        for label in (*_LABELS, *_BETA):
            has_any |= nodes.has_key(label)
        found = np.ones(nodes.rows, np.bool_)
        for label, values in self._wanted(pod):
            meets = np.zeros(nodes.rows, np.bool_)
            for value in values:
                # A node that has the label under its other name only is judged by that.
                other = _LABELS.get(label) or _BETA[label]
                meets |= nodes.has_pair(label, value) | (~nodes.has_key(label) & nodes.has_pair(other, value))
            found &= meets
        mask: Mask = (found | ~has_any)[rows]
        return mask

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """Always the same."""
        return (ZONE_CONFLICT,)

    def _wanted(self, pod: PodInfo) -> Iterator[tuple[str, list[str]]]:
        for key in pod.needs.claims:
            claim = self._volumes.claims.get(key)
            volume = self._volumes.volume(claim.volume) if claim is not None and claim.volume else None
            for label, value in volume.labels.items() if volume is not None else ():
                if label in _LABELS or label in _BETA:
                    yield label, value.split("__")
