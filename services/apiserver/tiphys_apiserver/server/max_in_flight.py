"""Sheds load without asking who calls: only so many requests are worked on at once, readers and writers apart."""

from __future__ import annotations

from dataclasses import dataclass

from tiphys_apimachinery.errors import TooManyRequests
from tiphys_apiserver.authentication.interface import MASTERS
from tiphys_apiserver.server.call import Call

_READING_VERBS = frozenset({"get", "list", "watch", "head", "options"})
RETRY_AFTER_S = 1


@dataclass(slots=True)
class Side:
    """Readers or writers; a limit of 0 is none."""

    most: int
    taken: int = 0

    def release(self) -> None:
        """Give a seat back."""
        self.taken -= 1


class MaxInFlight:
    """Implements FlowControl with two numbers, for servers with --enable-priority-and-fairness=false.

    Watches, logs and tunnels hold no seat. Members of system:masters are always let in, so that a person can repair
    an overloaded server.
    """

    def __init__(self, max_reading: int, max_mutating: int) -> None:
        self.reading = Side(max_reading)
        self.mutating = Side(max_mutating)
        self.refused = 0

    async def enter(self, call: Call) -> None:
        """Take a seat at once. Raises TooManyRequests when none is free."""
        if call.lasts:
            return
        side = self.reading if call.info.verb in _READING_VERBS else self.mutating
        if side.most and side.taken >= side.most and MASTERS not in call.user.groups:
            self.refused += 1
            raise TooManyRequests.of("Too many requests, please try again later.", RETRY_AFTER_S)
        side.taken += 1
        call.seat = side
