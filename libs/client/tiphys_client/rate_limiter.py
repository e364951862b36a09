"""How long an item of a work queue waits before its next try."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from tiphys_component.backoff import backoff_delay
from tiphys_component.clock import Clock


class RateLimiter(Protocol):
    """Decides a delay for each failure of an item."""

    def when(self, item: Hashable) -> float:
        """Seconds until the item may be tried again; each call counts as one more failure."""
        ...

    def forget(self, item: Hashable) -> None:
        """The item has succeeded or is given up: its failures no longer count."""
        ...

    def failures(self, item: Hashable) -> int:
        """How often the item has failed since it was forgotten."""
        ...


class ItemBackoff:
    """Doubles the delay with each failure of the same item.

    Source: client-go util/workqueue/default_rate_limiters.go, 5 ms doubled up to 1000 s.
    """

    def __init__(self, base_s: float = 0.005, cap_s: float = 1000.0) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._failures: dict[Hashable, int] = {}

    def when(self, item: Hashable) -> float:
        """Seconds until the item may be tried again."""
        failures = self._failures.get(item, 0)
        self._failures[item] = failures + 1
        return backoff_delay(failures, base_s=self._base_s, cap_s=self._cap_s)

    def forget(self, item: Hashable) -> None:
        """Start over for the item."""
        self._failures.pop(item, None)

    def failures(self, item: Hashable) -> int:
        """How often the item has failed since it was forgotten."""
        return self._failures.get(item, 0)


class Bucket:
    """Lets so many tries through each second, all items together, with a reserve for bursts.

    Source: client-go util/workqueue/default_rate_limiters.go, 10 a second and 100 at once.
    """

    def __init__(self, clock: Clock, *, per_second: float = 10.0, burst: int = 100) -> None:
        self._clock = clock
        self._per_second = per_second
        self._burst = float(burst)
        self._tokens = float(burst)
        self._filled = clock.monotonic()

    def when(self, item: Hashable) -> float:
        """Seconds until the bucket has a token for this try, which is taken now."""
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._per_second)
        self._filled = now
        self._tokens -= 1
        return max(0.0, -self._tokens / self._per_second)

    def forget(self, item: Hashable) -> None:
        """Nothing is kept for single items."""

    def failures(self, item: Hashable) -> int:
        """Nothing is kept for single items."""
        return 0


class Slowest:
    """The longest delay of several limiters."""

    def __init__(self, *limiters: RateLimiter) -> None:
        self._limiters = limiters

    def when(self, item: Hashable) -> float:
        """The longest delay that any of them asks for."""
        return max(limiter.when(item) for limiter in self._limiters)

    def forget(self, item: Hashable) -> None:
        """Pass it on to each."""
        for limiter in self._limiters:
            limiter.forget(item)

    def failures(self, item: Hashable) -> int:
        """The largest count that any of them has."""
        return max(limiter.failures(item) for limiter in self._limiters)


def default_rate_limiter(clock: Clock) -> RateLimiter:
    """What Kubernetes' controllers use: backoff for each item, and a bucket for all together."""
    return Slowest(ItemBackoff(), Bucket(clock))
