"""TaintToleration: taints that a pod does not tolerate keep it away, or make a node less wanted."""

from __future__ import annotations

import numpy as np

from tiphys.api.core.v1.scheduling_pb2 import Toleration
from tiphys_scheduler.columns import Columns, Mask, Rows, Taint
from tiphys_scheduler.framework.interface import Event, Normalize, Scores
from tiphys_scheduler.pod_info import PodInfo

_HARD = ("NoSchedule", "NoExecute")
_SOFT = "PreferNoSchedule"


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Whether a toleration covers a taint (key, value, effect)."""
    key, value, effect = taint
    if toleration.effect and toleration.effect != effect:
        return False
    if toleration.key and toleration.key != key:
        return False
    if toleration.operator == "Exists":
        return True
    return bool(toleration.key) and toleration.value == value


def _reason(taint: Taint) -> str:
    return f"node(s) had untolerated taint {{{taint[0]}: {taint[1]}}}"


class TaintToleration:
    """Filter and score."""

    name = "TaintToleration"
    events = frozenset({Event.NODE_ADDED, Event.NODE_TAINTS, Event.POD_CHANGED})
    looks_at_nodes_alone = True
    normalize = Normalize.REVERSED

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """Only where there are taints at all."""
        return bool(nodes.taints)

    def _untolerated(self, pod: PodInfo, nodes: Columns, effects: tuple[str, ...]) -> list[Taint]:
        tolerations = pod.tolerations()
        return [t for t in nodes.taints if t[2] in effects and not any(tolerates(x, t) for x in tolerations)]

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """Nodes without a hard taint that the pod does not tolerate."""
        found = np.ones(nodes.present[rows].shape, np.bool_)
        for taint in self._untolerated(pod, nodes, _HARD):
            found &= ~nodes.taints[taint][rows]
        return found

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """Names the first such taint that the node lists."""
        bad = self._untolerated(pod, nodes, _HARD)
        return next(((_reason(taint),) for taint in nodes.taints_of(row) if taint in bad), ())

    def reason_masks(self, pod: PodInfo, nodes: Columns) -> list[tuple[str, Mask]]:
        """By the first such taint that a node lists."""
        bad = set(self._untolerated(pod, nodes, _HARD))
        found: dict[str, Mask] = {}
        for taint in sorted(bad):
            reason = _reason(taint)
            # Most nodes with several have one key twice, with two effects, which is one reason.
            found[reason] = found[reason] | nodes.taints[taint] if reason in found else nodes.taints[taint].copy()
        if len(found) > 1:
            named = np.sum(list(found.values()), axis=0)
            for row in np.flatnonzero(named > 1).tolist():
                first = next(_reason(taint) for taint in nodes.taints_of(row) if taint in bad)
                for reason, mask in found.items():
                    mask[row] = reason == first
        return list(found.items())

    def score(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Scores:
        """How many soft taints are not tolerated; fewer is better."""
        found = np.zeros(nodes.present[rows].shape, np.int64)
        for taint in self._untolerated(pod, nodes, (_SOFT,)):
            found += nodes.taints[taint][rows]
        return found
