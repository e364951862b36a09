"""Which revision the store was at when: what lists at a past moment are made of.

Kept in memory, one entry for each second in which something was written. What was before this process began it does not
know, and what is older than the history that the store keeps it has forgotten.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from contextlib import suppress
from datetime import datetime, timedelta

from tiphys_apimachinery.errors import BadRequest, Expired
from tiphys_apimachinery.meta import format_time
from tiphys_apiserver.storage.interface import Store, StoreUnavailable
from tiphys_component.clock import Clock

_EVERY_S = 1.0


class Moments:
    """The revisions of the last history_s seconds, by the moment from which on the store was at each."""

    def __init__(self, store: Store, clock: Clock, *, history_s: float) -> None:
        self._store = store
        self._clock = clock
        self._history = timedelta(seconds=history_s)
        self._known: deque[tuple[datetime, int]] = deque()

    async def run(self) -> None:
        """Note the revision every second for ever. A store that does not answer has no news."""
        while True:
            with suppress(StoreUnavailable):
                self.note(await self._store.revision())
            await self._clock.sleep(_EVERY_S)

    def note(self, revision: int) -> None:
        """The store is at a revision now."""
        now = self._clock.now()
        if not self._known or revision > self._known[-1][1]:
            self._known.append((now, revision))
        # The entry before the oldest moment stays: it says what the store was at then.
        while len(self._known) > 1 and self._known[1][0] <= now - self._history:
            self._known.popleft()

    def at(self, moment: datetime) -> int:
        """The revision at a moment, to the second. Raises BadRequest for the future, Expired for what nobody knows."""
        if moment > self._clock.now():
            raise BadRequest(f"at: {format_time(moment)} is yet to come")
        found = bisect_right(self._known, moment, key=lambda entry: entry[0])
        if not found:
            begin = f"since {format_time(self._known[0][0])}" if self._known else "from a second after its start on"
            raise Expired(f"at: {format_time(moment)} is too long ago: this server knows the cluster {begin}")
        return self._known[found - 1][1]
