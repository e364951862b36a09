"""The shapes there are. A new one is a function that draws it, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Final

from tests.integration.simulation.deeds import Drawn
from tests.integration.simulation.shapes import batch, bounded, running

SHAPES: Final[Mapping[str, Callable[[Random], Drawn]]] = {
    shape.__name__: shape
    for shape in (
        running.deployments,
        running.stateful,
        running.daemons,
        running.guarded,
        running.overlapping,
        running.partitioned,
        batch.jobs,
        batch.failing_jobs,
        batch.cron_jobs,
        bounded.tight,
        bounded.autoscaled,
        bounded.priorities,
        bounded.claims,
    )
}
