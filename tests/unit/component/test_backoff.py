"""Delays between tries."""

import random

import pytest

from tiphys_component.backoff import Backoff, backoff_delay


@pytest.mark.parametrize(
    ("failures", "delay"),
    [
        pytest.param(0, 0.005, id="first"),
        pytest.param(3, 0.04, id="doubled thrice"),
        pytest.param(100_000, 1000.0, id="capped, without overflow"),
    ],
)
def test_delay_doubles_up_to_the_cap(failures: int, delay: float) -> None:
    assert backoff_delay(failures) == pytest.approx(delay)


def test_negative_failures_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        backoff_delay(-1)


def test_reset_starts_over() -> None:
    backoff = Backoff(1, 5)
    assert [backoff.next() for _ in range(4)] == [1, 2, 4, 5]
    backoff.reset()
    assert backoff.next() == 1


def test_jitter_only_adds() -> None:
    backoff = Backoff(1, 1, jitter=0.5, rng=random.Random(1))
    assert all(1 <= backoff.next() <= 1.5 for _ in range(50))
