"""Keeps the revisions of StatefulSets in the API."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from tiphys.api.apps.v1 import apps_pb2
from tiphys_apimachinery.errors import AlreadyExists, NotFound
from tiphys_apimachinery.labels import Selector
from tiphys_apimachinery.meta import is_controlled_by, new_controller_ref
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_controller_manager.controllers.statefulset.revisions import (
    API_VERSION,
    KIND,
    Revision,
    find_equal,
    in_order,
    make_revision,
    next_number,
    same_template,
    superfluous,
)
from tiphys_controller_manager.expectations import Expectations
from tiphys_controller_manager.ownership import Adopter, MessageView, sort_out
from tiphys_controller_manager.pods import CONTROLLER_INDEX, orphans_in

# Names tried for one template before it is left to the next round.
_MOST_NAMES: Final = 5


@dataclass(frozen=True, slots=True)
class Revisions:
    """All revisions of a set in order, and those two that its pods have or get."""

    known: tuple[Revision, ...]
    current: Revision
    update: Revision
    collisions: int


class History:
    """The revisions of one set at a time; the set's key is that of its expectations."""

    def __init__(self, client: Client, revisions: Informer[Revision, Any], expectations: Expectations) -> None:
        self._client = client
        self._revisions = revisions
        self._expectations = expectations
        self._adopter = Adopter(client, Revision)

    async def bring_up(self, key: str, stateful_set: apps_pb2.StatefulSet, selector: Selector) -> Revisions:
        """The set's revisions, with one for its template made or moved to the front. Raises errors of the API."""
        known = in_order(await self._own(key, stateful_set, selector))
        collisions = stateful_set.status.collisionCount
        update = find_equal(stateful_set, known)
        if update is None:
            update, collisions = await self._create(key, stateful_set, next_number(known), collisions)
            known = [*known, update]
        elif update is not known[-1]:
            # Going back to an old template: its revision becomes the newest.
            update.revision = next_number(known)
            update = await self._client.update(update)
            self._expectations.wrote(key, update)
            known = in_order([*(item for item in known if item.metadata.name != update.metadata.name), update])
        name = stateful_set.status.currentRevision
        current = next((item for item in known if item.metadata.name == name), update)
        return Revisions(tuple(known), current, update, collisions)

    async def shorten(
        self, key: str, stateful_set: apps_pb2.StatefulSet, revisions: Revisions, in_use: Collection[str]
    ) -> None:
        """Delete revisions beyond the limit that no pod has."""
        live = {*in_use, revisions.current.metadata.name, revisions.update.metadata.name}
        for item in superfluous(stateful_set, revisions.known, live):
            metadata = item.metadata
            self._expectations.deleting(key, [item])
            try:
                await self._client.delete(Revision, metadata.name, metadata.namespace, preconditions_uid=metadata.uid)
            except NotFound:
                continue
            except Exception:
                self._expectations.not_deleted(key, item)
                raise

    async def _own(self, key: str, stateful_set: apps_pb2.StatefulSet, selector: Selector) -> list[Revision]:
        metadata = stateful_set.metadata
        candidates = [
            MessageView(item)
            for where in (metadata.uid, orphans_in(metadata.namespace))
            for item in self._revisions.by_index(CONTROLLER_INDEX, where)
        ]
        owned = sort_out(stateful_set, selector, candidates)
        reference = new_controller_ref(stateful_set, API_VERSION, KIND)
        kept = await self._adopter.settle(
            stateful_set, reference, owned, lambda item: self._expectations.wrote(key, item)
        )
        return [view.obj for view in kept]

    async def _create(
        self, key: str, stateful_set: apps_pb2.StatefulSet, number: int, collisions: int
    ) -> tuple[Revision, int]:
        for _ in range(_MOST_NAMES):
            made = make_revision(stateful_set, number, collisions)
            try:
                stored = await self._client.create(made)
            except AlreadyExists:
                stored = await self._client.get(Revision, made.metadata.name, made.metadata.namespace)
                if not (is_controlled_by(stored, stateful_set) and same_template(stored, made)):
                    collisions += 1
                    continue
            self._expectations.wrote(key, stored)
            return stored, collisions
        raise RuntimeError(f"no free name for a revision of stateful set {key}")
