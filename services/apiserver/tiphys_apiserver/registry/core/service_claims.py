"""Who has which address and node port, where several servers give them out: one key of the store for each.

A server knows what it gave out itself at once, and what others gave out only when their services reach its cache. So
each reservation is also a key that can be created once. A claim whose owner died before its service was written, or
whose release was lost, is taken over by whoever wants it once it is old and no service stands behind it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import orjson

from tiphys_apiserver.registry.storage_errors import storage_errors
from tiphys_apiserver.storage.interface import KeyExists, KeyMissing, RevisionMismatch, StorageError, Store
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger

_log = get_logger(__name__)

PREFIX = "/registry/tiphys.io/serviceclaims/"
# A write that has claimed something ends long before.
DEAD_AFTER_S = 300.0


@dataclass(frozen=True, slots=True)
class Owner:
    """The service that an address or port is for."""

    uid: str
    namespace: str
    name: str


# Whether a service of this uid stands and holds the address or port.
IsHeld = Callable[[Owner, str], Awaitable[bool]]


class Claims(Protocol):
    """Makes reservations known to all servers; items are addresses and ports as text."""

    async def take(self, items: Iterable[str], owner: Owner) -> set[str]:
        """Claim items; those that others have. Claiming one's own again succeeds. Raises ServiceUnavailable."""
        ...

    async def owners(self) -> dict[str, str]:
        """The uid of the owner of every item that is claimed. Raises ServiceUnavailable."""
        ...

    async def give_back(self, items: Iterable[str], owner: Owner) -> None:
        """Drop claims of the owner; what is gone or another's is left alone, and a store that fails is not an error."""
        ...


class StoreClaims:
    """Implements Claims over a store."""

    def __init__(self, store: Store, clock: Clock, is_held: IsHeld) -> None:
        self._store = store
        self._clock = clock
        self._is_held = is_held

    async def take(self, items: Iterable[str], owner: Owner) -> set[str]:
        """Claim items; those that others have."""
        with storage_errors():
            return {item for item in items if not await self._take(item, owner)}

    async def owners(self) -> dict[str, str]:
        """The uid of the owner of every item that is claimed."""
        with storage_errors():
            page = await self._store.list(PREFIX)
        return {kv.key.removeprefix(PREFIX): _decode(kv.value)[0].uid for kv in page.items}

    async def _take(self, item: str, owner: Owner) -> bool:
        key, value = PREFIX + item, self._encode(owner)
        while True:
            try:
                await self._store.create(key, value)
                return True
            except KeyExists:
                pass
            found = await self._store.get(key)
            if found is None:
                continue
            other, at = _decode(found.value)
            if other.uid == owner.uid:
                return True
            if self._clock.now().timestamp() - at < DEAD_AFTER_S or await self._is_held(other, item):
                return False
            _log.info("claim without a service is taken over", item=item, service=f"{other.namespace}/{other.name}")
            try:
                await self._store.update(key, value, expected_revision=found.mod_revision)
                return True
            except RevisionMismatch:
                continue

    async def give_back(self, items: Iterable[str], owner: Owner) -> None:
        """Drop claims of the owner."""
        for item in items:
            try:
                found = await self._store.get(PREFIX + item)
                if found is not None and _decode(found.value)[0].uid == owner.uid:
                    await self._store.delete(PREFIX + item, expected_revision=found.mod_revision)
            except (KeyMissing, RevisionMismatch):
                continue
            except StorageError as err:
                # It is taken over when somebody wants it.
                _log.warning("claim can't be given back", item=item, err=str(err))

    def _encode(self, owner: Owner) -> bytes:
        at = self._clock.now().timestamp()
        return orjson.dumps({"uid": owner.uid, "namespace": owner.namespace, "name": owner.name, "at": at})


def _decode(value: bytes) -> tuple[Owner, float]:
    found = orjson.loads(value)
    return Owner(found["uid"], found["namespace"], found["name"]), float(found["at"])
