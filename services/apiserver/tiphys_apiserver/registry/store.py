"""The generic store of one resource: every write of every kind goes through here, in strategy.py's order.

Reads come from the watch cache. A write begins with the cached object and takes what the store
has when the two differ, so that it costs one round trip unless another writer came first; no
refusal is based on a stale object.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tiphys_apimachinery import names
from tiphys_apimachinery.errors import (
    APIError,
    BadRequest,
    FieldError,
    ServerTimeout,
    Timeout,
)
from tiphys_apiserver.registry import deletion, metadata
from tiphys_apiserver.registry.admit import NO_ADMISSION, Admit
from tiphys_apiserver.registry.batch_writes import BatchWrites
from tiphys_apiserver.registry.deletion import DeleteRequest
from tiphys_apiserver.registry.differences import settle
from tiphys_apiserver.registry.storage_errors import storage_errors
from tiphys_apiserver.registry.strategy import Finish, WriteContext
from tiphys_apiserver.registry.write_steps import copy_of
from tiphys_apiserver.storage.interface import (
    KeyExists,
    KeyMissing,
    NewKey,
    NotTogether,
    RevisionMismatch,
)

# Tries for a name made from generateName. Source: registry/rest/create.go, maxNameGenerationCreateAttempts.
_NAME_ATTEMPTS = 8
# Rounds of an update whose change can be made anew on the newest object.
_UPDATE_ATTEMPTS = 64


# Makes the object to store from a private copy of the one stored (None where there is none).
Change = Callable[[Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a delete left: the object as last seen, and whether it is gone."""

    object: Any
    gone: bool


class ResourceStore(BatchWrites):
    """Reads and writes of one resource in its storage version. For one loop."""

    # -- create

    async def create(self, ctx: WriteContext, obj: Any, admit: Admit = NO_ADMISSION) -> Any:
        """Store a new object, which belongs to the store from here on; the answer has its resourceVersion.

        Raises AlreadyExists, Invalid, BadRequest, and what admission and allocation raise.
        """
        if obj.metadata.resourceVersion:
            raise BadRequest("resourceVersion should not be set on objects to be created")
        metadata.match_namespace(obj.metadata, ctx.namespace if self.resource.namespaced else "")
        self._check_namespace(obj.metadata.namespace)
        generated = not obj.metadata.name and bool(obj.metadata.generateName)
        original = copy_of(obj) if generated else None
        for attempt in range(1, _NAME_ATTEMPTS + 1):
            if generated and original is not None:
                obj = original if attempt == _NAME_ATTEMPTS else copy_of(original)
                obj.metadata.name = names.generate_name(obj.metadata.generateName, self._environment.rng)
            try:
                return await self._create_once(ctx, obj, admit)
            except KeyExists as err:
                if not generated:
                    raise self._already_exists(obj.metadata.name) from err
        raise ServerTimeout.of(self.resource.plural, "POST", 1, group=self.resource.group)

    async def _create_once(self, ctx: WriteContext, obj: Any, admit: Admit) -> Any:
        strategy = self.strategy
        ctx.name = obj.metadata.name
        if not ctx.is_filled:
            strategy.apply_defaults(obj)
        if await admit.mutate(obj, None):
            strategy.apply_defaults(obj)
        errors = self._complete(ctx, obj)
        self._refuse(obj.metadata.name, errors + await self._judged(strategy.validate, ctx, obj))
        self._warn(ctx, obj)
        await admit.validate(obj, None)
        key = self.key(obj.metadata.namespace, obj.metadata.name)
        finish = await strategy.begin_create(ctx, obj)
        stored = False
        try:
            if ctx.dry_run:
                if await self._read(key) is not None:
                    raise KeyExists(key)
                return obj
            with storage_errors():
                into = ctx.creates or self._store
                revision = await into.create(key, self._encode(obj), ttl_s=strategy.ttl_s(obj))
            stored = True
        except (asyncio.CancelledError, Timeout):
            finish = None
            raise
        finally:
            await _end(finish, stored)
        obj.metadata.resourceVersion = str(revision)
        return obj

    async def create_together(self, keys: Sequence[NewKey]) -> Sequence[int]:
        """As Store.create_together, for objects that have been through create. Raises BadRequest where it can't be."""
        try:
            return await self._store.create_together(keys)
        except NotTogether as err:
            raise BadRequest(f"the objects can't be stored all or none: {err}") from err

    # -- update

    async def update(
        self,
        ctx: WriteContext,
        name: str,
        change: Change,
        admit: Admit = NO_ADMISSION,
        *,
        may_create: bool = False,
    ) -> tuple[Any, bool]:
        """Replace an object by what change makes of it; the object as stored, and whether it is new.

        change may be called again with a newer object. ctx.subresource chooses the strategy's
        step. Where nothing differs nothing is written. Raises NotFound, Conflict, Invalid, and
        what change and admission raise.
        """
        key = self.key(ctx.namespace, name)
        ctx.name = name
        current = self._cached(ctx.namespace, name)
        fresh = False
        if current is None:
            current, fresh = await self._read(key), True
        for _ in range(_UPDATE_ATTEMPTS):
            if current is None:
                if not may_create:
                    raise self._not_found(name)
                created = await self._create_by_update(ctx, change, admit)
                if created is not None:
                    return created, True
                current, fresh = await self._read(key), True
                continue
            if self.keeps_versions:
                current = await self._upgraded(current)
            try:
                return await self._update_once(ctx, key, current, change, admit=admit), False
            except RevisionMismatch as err:
                current, fresh = self._decode(err.current), True
            except APIError:
                if fresh:
                    raise
                # The refusal may come from a stale cache: judge again by what the store has.
                newest = await self._read(key)
                if newest is not None and newest.metadata.resourceVersion == current.metadata.resourceVersion:
                    raise
                current, fresh = newest, True
        raise self._conflict(name)

    async def _create_by_update(self, ctx: WriteContext, change: Change, admit: Admit) -> Any | None:
        """Create what an update names and finds absent; None when another writer was quicker."""
        obj = await change(None)
        metadata.match_namespace(obj.metadata, ctx.namespace if self.resource.namespaced else "")
        if obj.metadata.resourceVersion or obj.metadata.uid:
            raise self._conflict(ctx.name) if obj.metadata.resourceVersion else self._not_found(ctx.name)
        try:
            return await self._create_once(ctx, obj, admit)
        except KeyExists:
            return None

    async def _update_once(self, ctx: WriteContext, key: str, old: Any, change: Change, *, admit: Admit) -> Any:
        strategy = self.strategy
        new = await change(copy_of(old))
        metadata.match_namespace(new.metadata, ctx.namespace if self.resource.namespaced else "")
        self._check_version(new, old)
        if not ctx.trusted:
            self._apply_defaults(ctx, new)
        if await admit.mutate(new, old):
            strategy.apply_defaults(new)
        errors = await self._prepare_update(ctx, new, old)
        self._refuse(new.metadata.name, errors)
        if not ctx.subresource:
            self._warn(ctx, new)
        await admit.validate(new, old)
        expected = int(old.metadata.resourceVersion)
        if deletion.is_finished(new.metadata, strategy.holds_object(new)):
            if not ctx.dry_run:
                await self._remove(ctx, key, new, expected)
            return new
        new.metadata.resourceVersion = old.metadata.resourceVersion
        changed = settle(new, old)
        if not changed and not (self.keeps_versions and await self._is_outdated(key)):
            return old
        if not ctx.trusted:
            metadata.raise_generation(new, old, changed)
        finish = await self._begin_update(ctx, new, old)
        stored = False
        try:
            if ctx.dry_run:
                return new
            with storage_errors():
                revision = await self._store.update(
                    key, self._encode(new), expected_revision=expected, ttl_s=strategy.ttl_s(new)
                )
            stored = True
        except (asyncio.CancelledError, Timeout):
            finish = None
            raise
        finally:
            await _end(finish, stored)
        new.metadata.resourceVersion = str(revision)
        return new

    async def _begin_update(self, ctx: WriteContext, new: Any, old: Any) -> Finish | None:
        return None if ctx.trusted or ctx.subresource == "status" else await self.strategy.begin_update(ctx, new, old)

    async def _judged(self, judge: Callable[..., list[FieldError]], *seen: Any) -> list[FieldError]:
        if not self.strategy.may_take_long:
            return judge(*seen)
        return await self._environment.aside.run(partial(judge, *seen))

    async def _prepare_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        strategy = self.strategy
        self._keep_metadata(ctx, new, old)
        if ctx.trusted:
            return []
        if ctx.subresource == "status":
            strategy.prepare_for_status_update(ctx, new, old)
            errors = await self._judged(strategy.validate_status_update, ctx, new, old)
        elif ctx.subresource:
            strategy.prepare_for_subresource_update(ctx, new, old)
            errors = await self._judged(strategy.validate_subresource_update, ctx, new, old)
        else:
            strategy.prepare_for_update(ctx, new, old)
            errors = await self._judged(strategy.validate_update, ctx, new, old)
        return self._own(ctx, new, old) + errors

    # -- delete

    async def delete(
        self, ctx: WriteContext, name: str, request: DeleteRequest, admit: Admit = NO_ADMISSION
    ) -> Deleted:
        """Delete an object, or mark it where finalizers, grace or its kind keep it for a while.

        Raises NotFound, Conflict when a precondition fails, and what admission raises.
        """
        key = self.key(ctx.namespace, name)
        ctx.name = name
        current = self._cached(ctx.namespace, name)
        fresh = False
        if current is None:
            current, fresh = await self._read(key), True
        for _ in range(_UPDATE_ATTEMPTS):
            if current is None:
                raise self._not_found(name)
            if self.keeps_versions and admit is not NO_ADMISSION:
                # The server's own deletions need nobody who converts.
                current = await self._upgraded(current)
            try:
                deletion.check_preconditions(request, current, self.resource.plural, self.resource.group)
                await admit.validate(None, current)
                return await self._delete_once(ctx, key, current, request)
            except RevisionMismatch as err:
                current, fresh = self._decode(err.current), True
            except APIError:
                if fresh:
                    raise
                # As for an update: the refusal may come from a stale cache.
                newest = await self._read(key)
                if newest is not None and newest.metadata.resourceVersion == current.metadata.resourceVersion:
                    raise
                current, fresh = newest, True
        raise self._conflict(name)

    async def _delete_once(self, ctx: WriteContext, key: str, old: Any, request: DeleteRequest) -> Deleted:
        strategy = self.strategy
        new = self._marked(ctx, old, request)
        expected = int(old.metadata.resourceVersion)
        if deletion.is_finished(new.metadata, strategy.holds_object(new)):
            if not ctx.dry_run:
                await self._remove(ctx, key, old, expected)
            return Deleted(old, True)
        if new != old and not ctx.dry_run:
            with storage_errors():
                revision = await self._store.update(key, self._encode(new), expected_revision=expected)
            new.metadata.resourceVersion = str(revision)
        return Deleted(new, False)

    async def _remove(self, ctx: WriteContext, key: str, obj: Any, expected: int) -> None:
        try:
            with storage_errors():
                await self._store.delete(key, expected_revision=expected)
        except KeyMissing as err:
            raise RevisionMismatch(key, None) from err
        await self.strategy.after_delete(ctx, obj)


async def _end(finish: Finish | None, stored: bool) -> None:
    """End what a begin_ step opened. Where nobody knows whether the write happened there is nothing to end.

    What was reserved then stays so until the next start counts anew: better lost for a while than given out twice.
    """
    if finish is not None:
        await finish(stored)
