"""What tests draw at random: the same each time in `make test`, so that a red run is the change's own fault.

`make test-long` draws anew.

TIPHYS_TEST_SEED is the number that all is drawn from; "random" draws it anew and says which it was.
"""

from __future__ import annotations

import os
import random
from functools import cache


@cache
def seed() -> int:
    """The seed of this run."""
    given = os.environ.get("TIPHYS_TEST_SEED", "0")
    return random.SystemRandom().randrange(1 << 32) if given == "random" else int(given)


def is_fixed() -> bool:
    """Whether this run draws what every run draws."""
    return os.environ.get("TIPHYS_TEST_SEED", "0") != "random"


def rng(of: str) -> random.Random:
    """A source of random numbers for one test."""
    return random.Random(f"{seed()} {of}")
