"""Forgets the past of the store at a steady pace."""

from __future__ import annotations

from tiphys_apiserver.storage.interface import Store, StoreUnavailable
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger

_log = get_logger(__name__)


class Compactor:
    """Keeps between one and two intervals of history: each round compacts at the revision that the last one saw.

    Several servers over one etcd may each run one; the later call of a round changes little.
    """

    def __init__(self, store: Store, clock: Clock, *, interval_s: float) -> None:
        self._store = store
        self._clock = clock
        self._interval_s = interval_s

    async def run(self) -> None:
        """Compact for ever. A store that does not answer is asked again at the next round."""
        seen = 0
        while True:
            try:
                now = await self._store.revision()
                if seen:
                    await self._store.compact(seen)
                    _log.debug("store compacted", rv=seen)
                seen = now
            except StoreUnavailable as err:
                _log.warning("store can't be compacted, trying again later", err=str(err))
            await self._clock.sleep(self._interval_s)
