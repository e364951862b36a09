"""Keeps the revisions of StatefulSets and DaemonSets in the API."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from tiphys_apimachinery.errors import AlreadyExists, NotFound
from tiphys_apimachinery.labels import Selector
from tiphys_apimachinery.meta import is_controlled_by, new_controller_ref
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_controller_manager.expectations import Expectations
from tiphys_controller_manager.ownership import Adopter, MessageView, sort_out
from tiphys_controller_manager.pods import CONTROLLER_INDEX, orphans_in
from tiphys_controller_manager.revisions import (
    API_VERSION,
    Owner,
    Owners,
    Revision,
    find_equal,
    in_order,
    make_revision,
    next_number,
    same_template,
    superfluous,
)

# Names tried for one template before it is left to the next round.
_MOST_NAMES: Final = 5


@dataclass(frozen=True, slots=True)
class Revisions:
    """All revisions of an owner in order, and the one of its template, which is the newest."""

    known: tuple[Revision, ...]
    update: Revision
    collisions: int

    def named(self, name: str) -> Revision:
        """The revision of that name; where there is none, that of the template."""
        return next((item for item in self.known if item.metadata.name == name), self.update)


class History:
    """The revisions of one owner at a time; the owner's key is that of its expectations."""

    def __init__(
        self, client: Client, revisions: Informer[Revision, Any], expectations: Expectations, *, owners: Owners
    ) -> None:
        self._client = client
        self._owners = owners
        self._revisions = revisions
        self._expectations = expectations
        self._adopter = Adopter(client, Revision)

    async def bring_up(self, key: str, owner: Owner, selector: Selector) -> Revisions:
        """The owner's revisions, with one for its template made or moved to the front. Raises errors of the API."""
        known = in_order(await self._own(key, owner, selector))
        collisions = owner.status.collisionCount
        update = find_equal(owner, known)
        if update is None:
            update, collisions = await self._create(key, owner, next_number(known), collisions)
            known = [*known, update]
        elif update is not known[-1]:
            # Going back to an old template: its revision becomes the newest.
            update.revision = next_number(known)
            update = await self._client.update(update)
            self._expectations.wrote(key, update)
            known = in_order([*(item for item in known if item.metadata.name != update.metadata.name), update])
        return Revisions(tuple(known), update, collisions)

    async def shorten(self, key: str, owner: Owner, revisions: Revisions, in_use: Collection[str]) -> None:
        """Delete revisions beyond the limit that are neither the template's nor, by name, in use."""
        for item in superfluous(owner, revisions.known, {*in_use, revisions.update.metadata.name}):
            metadata = item.metadata
            self._expectations.deleting(key, [item])
            try:
                await self._client.delete(Revision, metadata.name, metadata.namespace, preconditions_uid=metadata.uid)
            except NotFound:
                continue
            except Exception:
                self._expectations.not_changed(key, item)
                raise

    async def _own(self, key: str, owner: Owner, selector: Selector) -> list[Revision]:
        metadata = owner.metadata
        candidates = [
            MessageView(item)
            for where in (metadata.uid, orphans_in(metadata.namespace))
            for item in self._revisions.by_index(CONTROLLER_INDEX, where)
        ]
        owned = sort_out(owner, selector, candidates)
        reference = new_controller_ref(owner, API_VERSION, self._owners.kind)
        kept = await self._adopter.settle(owner, reference, owned, lambda item: self._expectations.wrote(key, item))
        return [view.obj for view in kept]

    async def _create(self, key: str, owner: Owner, number: int, collisions: int) -> tuple[Revision, int]:
        for _ in range(_MOST_NAMES):
            made = make_revision(self._owners, owner, number, collisions)
            try:
                stored = await self._client.create(made)
            except AlreadyExists:
                stored = await self._client.get(Revision, made.metadata.name, made.metadata.namespace)
                if not (is_controlled_by(stored, owner) and same_template(stored, made)):
                    collisions += 1
                    continue
            self._expectations.wrote(key, stored)
            return stored, collisions
        raise RuntimeError(f"no free name for a revision of {self._owners.kind} {key}")
