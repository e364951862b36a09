"""Exponential backoff: the delay as a pure function, and a small counter around it for one loop of retries."""

from __future__ import annotations

import random

# Past this many doublings the result is the cap anyway, and the power would overflow.
_MAX_EXPONENT = 64


def backoff_delay(failures: int, *, base_s: float = 0.005, cap_s: float = 1000.0, factor: float = 2.0) -> float:
    """Seconds to wait before the next try: base_s times factor per failure, at most cap_s.

    Raises ValueError if failures is negative.
    Source: client-go util/workqueue/default_rate_limiters.go, the per-item limiter.
    """
    if failures < 0:
        raise ValueError(f"failures must not be negative: {failures}")
    return min(cap_s, base_s * factor ** min(failures, _MAX_EXPONENT))


class Backoff:
    """Delays for one loop of retries: next() grows them, reset() starts over.

    jitter adds up to that share of the delay at random, so that many clients do not return together.
    """

    __slots__ = ("_failures", "_rng", "base_s", "cap_s", "factor", "jitter")

    def __init__(
        self,
        base_s: float,
        cap_s: float,
        factor: float = 2.0,
        *,
        jitter: float = 0.0,
        rng: random.Random | None = None,
    ) -> None:
        if base_s <= 0 or cap_s < base_s or factor < 1 or jitter < 0:
            raise ValueError(f"backoff needs 0 < base_s <= cap_s and factor >= 1: {base_s}, {cap_s}, {factor}")
        self.base_s = base_s
        self.cap_s = cap_s
        self.factor = factor
        self.jitter = jitter
        self._rng = rng or random.Random()
        self._failures = 0

    @property
    def failures(self) -> int:
        """How many delays were given out since the last reset."""
        return self._failures

    def next(self) -> float:
        """The seconds to wait now; the next call answers with a longer one."""
        delay = backoff_delay(self._failures, base_s=self.base_s, cap_s=self.cap_s, factor=self.factor)
        self._failures += 1
        return delay * (1.0 + self.jitter * self._rng.random()) if self.jitter else delay

    def reset(self) -> None:
        """Start over from base_s, after a success."""
        self._failures = 0
