"""Plays one seed: its scenario without faults, then with them, and says what was wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from tests.integration.simulation.deeds import Step
from tests.integration.simulation.scenario import begin, draw
from tests.integration.simulation.state import end_state, is_settled
from tiphys_cluster.testing.cluster import MANAGER, Cluster, cluster
from tiphys_cluster.testing.faults import MANY, NONE, Faults
from tiphys_cluster.testing.invariants import guard
from tiphys_cluster.testing.world import World, follow
from tiphys_component.app import leaves, start_loop
from tiphys_component.virtual_time import virtual_time

# Longer than any back-off and lease, and shorter than a clock is ever set wrong: nobody may wait for the wrong time.
_SETTLES_WITHIN_S: Final = 1800.0
# Twenty times what a seed writes: somebody undoes for ever what another does.
_MOST_EVENTS: Final = 20_000
_JUMPS_S: Final = (-3600.0, -20.0, 20.0, 3600.0)


class Endless(AssertionError):
    """Writes follow each other and come to no end."""


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


def run(seed: int, faults: Faults, shapes: Sequence[str] = ()) -> Outcome:
    """One run of a seed's scenario on a virtual clock of its own. shapes are drawn too where none are given."""
    outcome = Outcome()
    try:
        with virtual_time() as (runner, clock):

            async def main() -> None:
                async with cluster(clock, seed=seed) as made:
                    await _play(made, draw(seed, shapes=shapes), faults, outcome, Random(f"jumps {seed}"))
                outcome.lasted_s = clock.monotonic()

            runner.run(main())
    except Exception as err:
        outcome.faults += [f"{type(leaf).__name__}: {leaf}, but {outcome.state}" for leaf in leaves(err)]
    return outcome


async def _play(made: Cluster, steps: list[Step], faults: Faults, outcome: Outcome, rng: Random) -> None:
    world = World(revision=await made.server.store.revision())
    watcher = guard(world, made.nodes.running, made.clock.monotonic)

    def look(before: Any, after: Any) -> None:
        if world.events > _MOST_EVENTS:
            raise Endless(
                f"{world.events} writes, the last of {(after if after is not None else before).metadata.name}"
            )
        watcher.look(before, after)

    async with asyncio.TaskGroup() as group:
        following = start_loop(group, follow(made.server.store, world, look), "guard")
        try:
            await begin(made)
            made.faults = faults
            for step in steps:
                await made.clock.sleep(step.after_s)
                if rng.random() < faults.jumps:
                    made.set_clocks(rng.choice(_JUMPS_S), rng.choice(list(made.clocks)))
                await step.deed(made)
            await made.clock.sleep(30)
            made.faults = NONE
            made.set_clocks()

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
            outcome.faults += [f"{breach.name} at {breach.revision}: {breach.what}" for breach in watcher.breaches]
            outcome.faults += [f"a process ended by itself: {failure!r}" for failure in made.failures()]
