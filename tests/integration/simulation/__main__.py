"""`python -m tests.integration.simulation SEED [LEVEL]`: plays one seed, with the log of the control plane."""

from __future__ import annotations

import sys

from tests.integration.simulation.play import play
from tests.integration.simulation.scenario import draw
from tiphys_component import log


def main() -> int:
    """Play the seed of the command line; 1 where something was wrong."""
    log.configure(sys.argv[2] if len(sys.argv) > 2 else "error", "text")
    seed = int(sys.argv[1])
    say = sys.stdout.write
    for step in draw(seed):
        say(f"+{step.after_s:g} s: {step.name}\n")
    outcome = play(seed)
    say(f"{outcome.events} events in {outcome.lasted_s:.0f} virtual seconds, {outcome.digest[:16]}\n")
    say(("\n".join(outcome.faults) or f"well: {outcome.state}") + "\n")
    return bool(outcome.faults)


if __name__ == "__main__":
    raise SystemExit(main())
