"""How much work a request is, in seats."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from tiphys_apiserver.server.call import Call
from tiphys_apiserver.server.request_info import RequestInfo

# Source: kube-apiserver's work estimator, pkg/util/flowcontrol/request/config.go.
OBJECTS_PER_SEAT = 100
MOST_SEATS = 10

# How many objects a list of this scope has; -1 where that is not known.
CountObjects = Callable[[RequestInfo], int]


def seats_of(call: Call, count: CountObjects) -> int:
    """Seats that a request holds: one, or for a list one for every hundred objects that it may read, at most ten."""
    info = call.info
    if info.name or not (info.verb == "list" or call.sends_initial_events):
        return 1
    objects = count(info)
    if call.limit and not call.label_selector and not call.field_selector:
        objects = min(objects, call.limit)
    return min(max(1, math.ceil(objects / OBJECTS_PER_SEAT)), MOST_SEATS)


class Turnstile:
    """Lets one long request begin in each turn of the loop.

    A list is worked out in one piece, and nothing else is answered meanwhile. Were ten admitted lists to begin in the
    same turn, a small request would wait for all of them; so between any two the loop looks at its sockets.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._turning = False

    async def pass_through(self) -> None:
        """Return in a turn in which nobody else has begun."""
        loop = asyncio.get_running_loop()
        if not self._turning:
            self._turning = True
            loop.call_soon(self._turn, loop)
            return
        place = loop.create_future()
        self._waiting.append(place)
        await place

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                loop.call_soon(self._turn, loop)
                return
        self._turning = False
