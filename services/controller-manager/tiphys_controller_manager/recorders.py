"""Events by component: each controller tells under its own name, as users know them from Kubernetes."""

from __future__ import annotations

import asyncio
from random import Random

from tiphys_client.client import Client
from tiphys_client.recorder import EventRecorder
from tiphys_component.app import start_loop
from tiphys_component.clock import Clock
from tiphys_component.metrics import Registry


class Recorders:
    """Makes one recorder for each component before run(), and runs them together."""

    def __init__(self, client: Client, clock: Clock, registry: Registry, rng: Random | None = None) -> None:
        self._client = client
        self._rng = rng
        self._clock = clock
        self._registry: Registry | None = registry
        self._recorders: dict[str, EventRecorder] = {}

    def of(self, component: str) -> EventRecorder:
        """The recorder of a component, made at the first call."""
        known = self._recorders.get(component)
        if known is None:
            # The first one has the metric for all: a registry takes each name once.
            known = EventRecorder(self._client, component, clock=self._clock, registry=self._registry, rng=self._rng)
            self._recorders[component] = known
            self._registry = None
        return known

    async def run(self) -> None:
        """Write events until cancelled."""
        async with asyncio.TaskGroup() as group:
            for component, recorder in self._recorders.items():
                start_loop(group, recorder.run(), f"events of {component}")
