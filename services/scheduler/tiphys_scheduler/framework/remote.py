"""Plugins in other processes: asked once for a class of pods, with the nodes as columns, over gRPC.

What they said is kept by class and brought up to date only for nodes that changed, before a pod of the class is placed.
A plugin that looks at what pods request hears of placements once a turn of the scheduling cycle, not after each one:
a call takes as long as placing ten pods.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.scheduler.v1 import plugin_pb2, plugin_pb2_grpc
from tiphys_component.app import StartupError
from tiphys_component.log import get_logger
from tiphys_component.rpc import channel
from tiphys_scheduler.columns import Columns, Mask, Rows
from tiphys_scheduler.configuration.model import RemotePluginConfig
from tiphys_scheduler.framework.interface import Event, Normalize, Scores
from tiphys_scheduler.pod_info import Needs, PodInfo

_log = get_logger("scheduler.remote")
_MOST_CLASSES = 256
_NORMALIZE = {
    plugin_pb2.NORMALIZATION_UNSPECIFIED: Normalize.NONE,
    plugin_pb2.NORMALIZATION_HIGHEST: Normalize.HIGHEST,
    plugin_pb2.NORMALIZATION_REVERSED: Normalize.REVERSED,
}
_INT64 = np.dtype("<i8")


class RemoteError(Exception):
    """A plugin that may not be ignored gave no answer."""


@dataclass(slots=True)
class _Verdict:
    """What the plugin says of a class; seen is how many notes of the columns it has taken in, turn when that was."""

    epoch: int
    seen: int
    turn: int
    passes: Mask
    scores: Scores
    reason: str = ""


class RemotePlugin:
    """Filter and score, out of what was asked before. `lacks` says whether `refresh` must be awaited first."""

    # What may change its mind is unknown.
    events = frozenset(Event)

    def __init__(
        self,
        config: RemotePluginConfig,
        description: plugin_pb2.DescribeResponse,
        stub: plugin_pb2_grpc.SchedulerPluginServiceAsyncStub,
    ) -> None:
        self._config, self._description, self._stub = config, description, stub
        self.name = config.name
        self.weight = config.weight
        self.filters, self.scores = description.filters, description.scores
        self.normalize = _NORMALIZE[description.normalization]
        self.looks_at_nodes_alone = not description.looks_at_requests
        self._verdicts: OrderedDict[Needs, _Verdict] = OrderedDict()

    def lacks(self, pod: PodInfo, nodes: Columns, turn: int) -> bool:
        """Whether something is to be asked before a pod of this class is placed."""
        found = self._verdicts.get(pod.needs)
        if found is None or found.epoch != nodes.epoch:
            return True
        if found.seen == len(nodes.changes) or (not self.looks_at_nodes_alone and found.turn == turn):
            return False
        if not self.looks_at_nodes_alone:
            return True
        if any(row < 0 for row in nodes.changes[found.seen :]):
            return True
        found.seen = len(nodes.changes)
        return False

    async def refresh(self, pod: PodInfo, message: Pod, nodes: Columns, turn: int) -> None:
        """Asks what is lacking. Raises RemoteError; where the plugin may be ignored, every node passes meanwhile."""
        found = self._verdicts.get(pod.needs)
        if found is None or found.epoch != nodes.epoch:
            rows = np.flatnonzero(nodes.present)
            found = _Verdict(nodes.epoch, 0, turn, np.ones(nodes.rows, np.bool_), np.zeros(nodes.rows, np.int64))
        else:
            changed = nodes.changes[found.seen :]
            picked = {max(row, ~row) for row in changed if row < 0 or not self.looks_at_nodes_alone}
            rows = np.array([row for row in sorted(picked) if nodes.present[row]], np.intp)
        epoch, seen = nodes.epoch, len(nodes.changes)
        names = [nodes.names[row] for row in rows.tolist()]
        try:
            passes, reason, scores = await self._ask(message, rows, nodes)
        except (grpc.aio.AioRpcError, ValueError) as err:
            why = err.details() if isinstance(err, grpc.aio.AioRpcError) else str(err)
            if not self._config.is_ignorable:
                raise RemoteError(f"plugin {self.name} at {self._config.target}: {why}") from err
            _log.warning("plugin left out", plugin=self.name, pod=pod.key, err=why)
            passes, reason, scores = np.ones(len(rows), np.bool_), "", np.zeros(len(rows), np.int64)
        if nodes.epoch != epoch:
            # The rows are others now; the next look asks again.
            return
        stays = np.array([nodes.names[row] == name for row, name in zip(rows.tolist(), names, strict=True)], np.bool_)
        rows = rows[stays] if len(rows) else rows
        moved = (
            rows[(found.passes[rows] != passes[stays]) | (found.scores[rows] != scores[stays])] if len(rows) else rows
        )
        found.passes[rows], found.scores[rows] = passes[stays], scores[stays]
        found.reason = reason or found.reason
        found.seen, found.turn = seen, turn
        self._keep(pod.needs, found, moved, nodes)

    def _keep(self, needs: Needs, verdict: _Verdict, moved: NDArray[np.intp], nodes: Columns) -> None:
        is_new = needs not in self._verdicts
        self._verdicts[needs] = verdict
        self._verdicts.move_to_end(needs)
        if len(self._verdicts) > _MOST_CLASSES:
            self._verdicts.popitem(last=False)
        if not is_new and len(moved):
            # Classes have computed with the old verdict on these rows.
            nodes.changes.extend((~moved).tolist() if self.looks_at_nodes_alone else moved.tolist())
            verdict.seen = len(nodes.changes)

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """For every class that it was asked about."""
        return self.filters and pod.needs in self._verdicts

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """As it said."""
        found: Mask = self._verdicts[pod.needs].passes[rows]
        return found

    def passes(self, pod: PodInfo, nodes: Columns, row: int) -> bool:
        """The same of one node."""
        return bool(self._verdicts[pod.needs].passes[row])

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """As it said."""
        return (self._reason(pod),)

    def reason_masks(self, pod: PodInfo, nodes: Columns) -> list[tuple[str, Mask]]:
        """The one reason, of all that do not pass."""
        found = self._verdicts.get(pod.needs)
        return [] if found is None else [(self._reason(pod), ~found.passes)]

    def score(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Scores:
        """As it said."""
        found = self._verdicts.get(pod.needs)
        if found is None or not self.scores:
            return np.zeros(nodes.present[rows].shape, np.int64)
        scores: Scores = found.scores[rows]
        return scores

    def score_row(self, pod: PodInfo, nodes: Columns, row: int) -> int:
        """The same of one node."""
        found = self._verdicts.get(pod.needs)
        return 0 if found is None or not self.scores else int(found.scores[row])

    def _reason(self, pod: PodInfo) -> str:
        found = self._verdicts.get(pod.needs)
        return (found.reason if found is not None else "") or f"node(s) were refused by {self.name}"

    async def _ask(self, pod: Pod, rows: NDArray[np.intp], nodes: Columns) -> tuple[Mask, str, Scores]:
        passes, reason, scores = np.ones(len(rows), np.bool_), "", np.zeros(len(rows), np.int64)
        if not len(rows):
            return passes, reason, scores
        columns, timeout_s = self._columns(rows, nodes), self._config.timeout_s
        if self.filters:
            verdict = await self._stub.Filter(plugin_pb2.FilterRequest(pod=pod, nodes=columns), timeout=timeout_s)
            passes, reason = np.frombuffer(verdict.passes, np.uint8) != 0, verdict.reason
        if self.scores:
            marks = await self._stub.Score(plugin_pb2.ScoreRequest(pod=pod, nodes=columns), timeout=timeout_s)
            scores = np.frombuffer(marks.scores, _INT64).astype(np.int64)
        if len(passes) != len(rows) or len(scores) != len(rows):
            raise ValueError(f"answered {len(passes)} and {len(scores)} of {len(rows)} nodes")
        return passes, reason, scores

    def _columns(self, rows: NDArray[np.intp], nodes: Columns) -> plugin_pb2.NodeColumns:
        made = plugin_pb2.NodeColumns(names=[nodes.names[row] for row in rows.tolist()])
        for resource in self._description.resources:
            index = nodes.resource(resource)
            made.capacity[resource] = nodes.capacity[index, rows].astype(_INT64).tobytes()
            if self._description.looks_at_requests:
                made.requested[resource] = nodes.requested[index, rows].astype(_INT64).tobytes()
        for label in self._description.labels:
            topology = nodes.topology(label)
            column = np.full(nodes.rows, -1, np.int32)
            values = list(topology.values())
            for number, value in enumerate(values):
                column[topology.rows_with(value)] = number
            made.labels[label].values.extend(values)
            made.labels[label].indexes = column[rows].astype("<i4").tobytes()
        return made


async def connect(configs: Iterable[RemotePluginConfig]) -> list[RemotePlugin]:
    """The plugins of a configuration. Raises StartupError for one that does not answer and may not be ignored."""
    found = []
    for config in configs:
        stub: plugin_pb2_grpc.SchedulerPluginServiceAsyncStub = plugin_pb2_grpc.SchedulerPluginServiceStub(
            channel(config.target)
        )
        try:
            description = await stub.Describe(
                plugin_pb2.DescribeRequest(), timeout=config.timeout_s, wait_for_ready=True
            )
        except grpc.aio.AioRpcError as err:
            if config.is_ignorable:
                _log.warning("plugin left out", plugin=config.name, err=err.details())
                continue
            raise StartupError(
                f"plugin {config.name} at {config.target} does not answer: {err.details()}",
                "start it first, or mark it ignorable in the configuration",
            ) from err
        found.append(RemotePlugin(config, description, stub))
    return found
