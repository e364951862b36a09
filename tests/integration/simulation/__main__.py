"""Plays seeds by hand: one with the deeds of its scenario, or a range on all cores.

python -m tests.integration.simulation 7 [--log-level debug]
python -m tests.integration.simulation 100-5000
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.integration.simulation.play import play
from tests.integration.simulation.scenario import draw
from tiphys_component import log

_TELL_EVERY = 50
_TELL_OF = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the seeds of the command line; 1 where something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.integration.simulation", description=__doc__)
    parser.add_argument("seeds", help="one seed, or a range such as 100-5000 without its end")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="seeds played at once")
    parser.add_argument("--log-level", default="error", help="of the control plane")
    options = parser.parse_args(arguments)
    log.configure(options.log_level)
    first, _, end = options.seeds.partition("-")
    if not end:
        return _play_one(int(first))
    return _play_many(range(int(first), int(end)), options.jobs, options.log_level)


def _play_one(seed: int) -> int:
    say = sys.stdout.write
    for step in draw(seed):
        say(f"+{step.after_s:g} s: {step.name}\n")
    outcome = play(seed)
    say(f"{outcome.events} events in {outcome.lasted_s:.0f} virtual seconds, {outcome.digest[:16]}\n")
    say(("\n".join(outcome.faults) or f"well: {outcome.state}") + "\n")
    return bool(outcome.faults)


def _play_many(seeds: range, jobs: int, level: str) -> int:
    began, failed, events = time.monotonic(), 0, 0
    longest: list[tuple[float, int]] = []
    with ProcessPoolExecutor(jobs, initializer=log.configure, initargs=(level,)) as pool:
        played = {pool.submit(play, seed): seed for seed in seeds}
        for number, future in enumerate(as_completed(played), 1):
            seed, outcome = played.pop(future), future.result()
            events += outcome.events
            longest = sorted([*longest, (outcome.lasted_s, seed)], reverse=True)[:_TELL_OF]
            if outcome.faults:
                failed += 1
                sys.stdout.write(f"seed {seed}: {'; '.join(outcome.faults[:3])}\n")
                sys.stdout.write(f"  again: python -m tests.integration.simulation {seed}\n")
                sys.stdout.flush()
            if number % _TELL_EVERY == 0 or number == len(seeds):
                took_s = time.monotonic() - began
                said = f"{number} of {len(seeds)} seeds, {failed} failed, {events} events, {took_s:.0f} s\n"
                sys.stdout.write(said)
                sys.stdout.flush()
    told = ", ".join(f"{seed} ({lasted_s:.0f} s)" for lasted_s, seed in longest)
    sys.stdout.write(f"settled last, in virtual time: {told}\n")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
