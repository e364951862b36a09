"""Plays one seed: its scenario without faults, then with them, and says what was wrong."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from tests.integration.simulation.scenario import Step, begin, draw, end_state, is_settled
from tiphys_cluster.testing.cluster import MANAGER, Cluster, cluster
from tiphys_cluster.testing.faults import MANY, NONE, Faults
from tiphys_cluster.testing.invariants import Guard
from tiphys_cluster.testing.world import World, follow
from tiphys_component.app import leaves, start_loop
from tiphys_component.virtual_time import virtual_time

# Longer than any back-off and lease: a cluster that is not done by then will never be.
_SETTLES_WITHIN_S = 3600.0


@dataclass(slots=True)
class Outcome:
    """How a run went. faults are empty where all was well."""

    digest: str = ""
    events: int = 0
    lasted_s: float = 0.0
    # How often the controller manager was killed.
    kills: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def play(seed: int, faults: Faults = MANY) -> Outcome:
    """The run with faults, held against that without."""
    plain, hard = run(seed, NONE), run(seed, faults)
    hard.faults += [f"without faults: {fault}" for fault in plain.faults]
    if not hard.faults and hard.state != plain.state:
        hard.faults.append(f"ended as {hard.state}, without faults as {plain.state}")
    return hard


def run(seed: int, faults: Faults) -> Outcome:
    """One run of a seed's scenario on a virtual clock of its own."""
    outcome = Outcome()
    try:
        with virtual_time() as (runner, clock):

            async def main() -> None:
                async with cluster(clock, seed=seed) as made:
                    await _play(made, draw(seed), faults, outcome)
                outcome.lasted_s = clock.monotonic()

            runner.run(main())
    except Exception as err:
        outcome.faults += [f"{type(leaf).__name__}: {leaf}, but {outcome.state}" for leaf in leaves(err)]
    return outcome


async def _play(made: Cluster, steps: list[Step], faults: Faults, outcome: Outcome) -> None:
    world = World(revision=await made.server.store.revision())
    guard = Guard(world, made.nodes.running)
    async with asyncio.TaskGroup() as group:
        following = start_loop(group, follow(made.server.store, world, guard.look), "guard")
        try:
            await begin(made)
            made.faults = faults
            for step in steps:
                await made.clock.sleep(step.after_s)
                await step.deed(made)
            await made.clock.sleep(30)
            made.faults = NONE

            async def settled() -> bool:
                return await is_settled(made)

            try:
                await made.until(settled, within_s=_SETTLES_WITHIN_S)
            finally:
                outcome.state = await end_state(made)
        finally:
            following.cancel()
            outcome.digest, outcome.events = world.digest, world.events
            outcome.kills = made.processes[MANAGER].kills
            outcome.faults += [f"{breach.name} at {breach.revision}: {breach.what}" for breach in guard.breaches]
            outcome.faults += [f"a process ended by itself: {failure!r}" for failure in made.failures()]
