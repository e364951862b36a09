"""Sheds load: only so many requests are worked on at once, readers and writers counted apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tiphys_apimachinery.errors import TooManyRequests
from tiphys_apiserver.authentication.interface import MASTERS, UserInfo

_READING_VERBS = frozenset({"get", "list", "watch", "head", "options"})
RETRY_AFTER_S = 1


class FlowControl:
    """Seats for short requests; watches, logs and tunnels last and hold none.

    Members of system:masters are always let in, so that a person can repair an overloaded server.
    A limit of 0 is none.
    """

    def __init__(self, max_reading: int, max_mutating: int) -> None:
        self._max_reading = max_reading
        self._max_mutating = max_mutating
        self.reading = 0
        self.mutating = 0
        self.refused = 0

    @contextmanager
    def seat(self, verb: str, user: UserInfo, *, lasting: bool) -> Iterator[None]:
        """Hold a seat while the block runs. Raises TooManyRequests at once when none is free."""
        if lasting:
            yield
            return
        if verb in _READING_VERBS:
            self._check(self.reading, self._max_reading, user)
            self.reading += 1
            try:
                yield
            finally:
                self.reading -= 1
        else:
            self._check(self.mutating, self._max_mutating, user)
            self.mutating += 1
            try:
                yield
            finally:
                self.mutating -= 1

    def _check(self, taken: int, most: int, user: UserInfo) -> None:
        if most and taken >= most and MASTERS not in user.groups:
            self.refused += 1
            raise TooManyRequests.of("Too many requests, please try again later.", RETRY_AFTER_S)
