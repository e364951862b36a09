"""ImageLocality: a node that has the pod's images already is the better one.

Source of the arithmetic: kube-scheduler pkg/scheduler/framework/plugins/imagelocality.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiphys_scheduler.columns import Columns, Mask, Rows
from tiphys_scheduler.framework.interface import MAX_SCORE, Event, Normalize, Scores
from tiphys_scheduler.images import Image
from tiphys_scheduler.pod_info import PodInfo

_MB = 1024 * 1024
# Less than this is downloaded in no time; more than that for each container makes no difference any more.
_LEAST_BYTES, _MOST_BYTES_A_CONTAINER = 23 * _MB, 1000 * _MB
_NO_ROWS: NDArray[np.intp] = np.zeros(0, np.intp)


class ImageLocality:
    """Score. An image counts by its size, and by how many of all nodes have it: a rare one draws fewer pods."""

    name = "ImageLocality"
    events: frozenset[Event] = frozenset()
    # 0 to 100 as it is; the nodes that have an image change without any pod, hence `relate`.
    normalize = Normalize.NONE

    def related(self, pod: PodInfo, nodes: Columns) -> object:
        """The nodes that have the images."""
        return tuple((id(image), image.version) for image in _found(pod, nodes))

    def relate(self, pod: PodInfo, nodes: Columns) -> _Scored | None:
        """Scores of all rows."""
        images = _found(pod, nodes)
        if not images:
            return None
        total = np.zeros(nodes.rows, np.int64)
        for image in images:
            total += image.has * int(float(image.size_bytes) * (float(image.nodes) / float(len(nodes))))
        most = _MOST_BYTES_A_CONTAINER * len(pod.needs.images)
        total = np.clip(total, _LEAST_BYTES, most)
        return _Scored(MAX_SCORE * (total - _LEAST_BYTES) // (most - _LEAST_BYTES))

    def score(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Scores:
        """The same, of these rows."""
        relation = self.relate(pod, nodes)
        if relation is None:
            return np.zeros(nodes.present[rows].shape, np.int64)
        scores: Scores = relation.scores(nodes.present)[rows]
        return scores


def _found(pod: PodInfo, nodes: Columns) -> list[Image]:
    """The images that are anywhere; twice where two containers have the same."""
    return [image for name in pod.needs.images if (image := nodes.images.find(name)) is not None]


class _Scored:
    """Scores that no pod changes."""

    mask: Mask | None = None

    def __init__(self, scores: Scores) -> None:
        self._scores = scores

    def update(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Nothing changes."""
        return _NO_ROWS

    def scores(self, feasible: Mask) -> Scores:
        """As computed."""
        return self._scores
