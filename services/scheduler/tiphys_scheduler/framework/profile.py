"""Which plugins a scheduler runs at each point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tiphys_scheduler.framework.interface import (
    BindPlugin,
    FilterPlugin,
    PermitPlugin,
    Plugin,
    PostBindPlugin,
    PostFilterPlugin,
    PreBindPlugin,
    PreEnqueuePlugin,
    PreFilterPlugin,
    PreScorePlugin,
    QueueSortPlugin,
    ReservePlugin,
    ScorePlugin,
    concerns,
)
from tiphys_scheduler.plugins.priority_sort import PrioritySort
from tiphys_scheduler.plugins.scheduling_gates import SchedulingGates
from tiphys_scheduler.pod_info import PodInfo


@dataclass(frozen=True, slots=True)
class Profile:
    """The plugins of each point in order; filters refuse in this order, scores count by weight.

    binds are asked before the default binder.
    """

    filters: Sequence[FilterPlugin]
    scores: Sequence[tuple[ScorePlugin, int]]
    pre_filters: Sequence[PreFilterPlugin] = ()
    pre_enqueues: Sequence[PreEnqueuePlugin] = (SchedulingGates(),)
    queue_sort: QueueSortPlugin = field(default_factory=PrioritySort)
    post_filters: Sequence[PostFilterPlugin] = ()
    pre_scores: Sequence[PreScorePlugin] = ()
    reserves: Sequence[ReservePlugin] = ()
    permits: Sequence[PermitPlugin] = ()
    pre_binds: Sequence[PreBindPlugin] = ()
    binds: Sequence[BindPlugin] = ()
    post_binds: Sequence[PostBindPlugin] = ()
    name: str = "default-scheduler"

    @property
    def is_plain(self) -> bool:
        """Whether a chosen pod goes straight to the binder."""
        return not (self.reserves or self.permits or self.pre_binds or self.binds)

    def is_plain_for(self, pod: PodInfo) -> bool:
        """Whether this pod does, since no plugin has anything to do for it."""
        if self.permits or self.binds:
            return False
        return not any(concerns(plugin, pod) for plugin in (*self.reserves, *self.pre_binds))

    def plugins(self) -> dict[str, Plugin]:
        """All of them by name."""
        every: list[Plugin] = [self.queue_sort]
        for point in (
            self.pre_enqueues,
            self.pre_filters,
            self.filters,
            self.post_filters,
            self.pre_scores,
            tuple(plugin for plugin, _ in self.scores),
            self.reserves,
            self.permits,
            self.pre_binds,
            self.binds,
            self.post_binds,
        ):
            every.extend(point)
        return {plugin.name: plugin for plugin in every}
