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

from google.protobuf.message import Message

from tiphys_apimachinery import names
from tiphys_apimachinery.codec import proto_codec
from tiphys_apimachinery.errors import (
    AlreadyExists,
    APIError,
    BadRequest,
    Conflict,
    FieldError,
    Invalid,
    NotFound,
    ServerTimeout,
    Timeout,
)
from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.cel.aside import Aside
from tiphys_apiserver.registry import deletion, metadata
from tiphys_apiserver.registry.admit import NO_ADMISSION, Admit
from tiphys_apiserver.registry.deletion import DeleteRequest
from tiphys_apiserver.registry.differences import settle
from tiphys_apiserver.registry.storage_errors import storage_errors
from tiphys_apiserver.registry.strategy import Environment, Finish, Strategy, WriteContext
from tiphys_apiserver.storage.cacher import Cacher
from tiphys_apiserver.storage.interface import (
    KeyExists,
    KeyMissing,
    KeyValue,
    NewKey,
    NotTogether,
    Replacement,
    RevisionMismatch,
    Store,
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


class ResourceStore:
    """Reads and writes of one resource in its storage version. For one loop."""

    def __init__(
        self, resource: ResourceInfo, strategy: Strategy, store: Store, cacher: Cacher, *, environment: Environment
    ) -> None:
        self.resource = resource
        self.strategy = strategy
        self.cacher = cacher
        self._store = store
        self._environment = environment
        self._prefix = f"{resource.storage_key_prefix}/"
        self._api_version = resource.api_version
        self._message = resource.message
        # Objects may lie in the store in other versions than the one that is stored now.
        self.keeps_versions = False

    @property
    def aside(self) -> Aside:
        """Where rules that are written as expressions are asked."""
        return self._environment.aside

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

    def _complete(self, ctx: WriteContext, obj: Any) -> list[FieldError]:
        """Give a new object what is not its author's to give; the faults of its metadata."""
        metadata.prepare_create(obj, uid=self._environment.new_uid(), now=ctx.now)
        if ctx.record_owner is None:
            del obj.metadata.managedFields[:]
        self.strategy.prepare_for_create(ctx, obj)
        if ctx.record_owner is not None:
            ctx.record_owner(obj, None)
        return self._name_errors(obj) + metadata.validate_metadata(obj.metadata)

    async def create_each(self, ctx: WriteContext, objects: Sequence[Any]) -> list[bool]:
        """Store new objects that admission has judged already; for each whether it was stored, with its version then.

        It is the quick road for what goes well: where False comes back nothing is stored, be the name taken or to be
        made, or the object refused, and `create` finds out why. Raises what hinders all.
        """
        stored = [False] * len(objects)
        strategy = self.strategy
        if ctx.dry_run or strategy.may_take_long or type(strategy).begin_create is not Strategy.begin_create:
            return stored
        writes: list[NewKey] = []
        indexes: list[int] = []
        for index, obj in enumerate(objects):
            if obj.metadata.resourceVersion or not obj.metadata.name:
                continue
            try:
                metadata.match_namespace(obj.metadata, ctx.namespace if self.resource.namespaced else "")
                self.strategy.apply_defaults(obj)
                errors = self._complete(ctx, obj)
                self._refuse(obj.metadata.name, errors + self.strategy.validate(ctx, obj))
                self._warn(ctx, obj)
                key = self.key(obj.metadata.namespace, obj.metadata.name)
            except APIError:
                continue
            writes.append(NewKey(key, self._encode(obj), self.strategy.ttl_s(obj)))
            indexes.append(index)
        if writes:
            with storage_errors():
                outcomes = await self._store.write_each(writes)
            for index, outcome in zip(indexes, outcomes, strict=True):
                if isinstance(outcome, int):
                    objects[index].metadata.resourceVersion = str(outcome)
                    stored[index] = True
        return stored

    def _name_errors(self, obj: Any) -> list[FieldError]:
        name = obj.metadata.name
        if not name:
            return [FieldError.required("metadata.name", "name or generateName is required")]
        return [FieldError.invalid("metadata.name", name, why) for why in self.strategy.validate_name(name)]

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

    async def set_each(
        self, ctx: WriteContext, names: Sequence[tuple[str, str]], change: Callable[[int, Any], bool]
    ) -> list[bool]:
        """The server's own change (ctx.trusted) to many objects by namespace and name; for each whether it was stored.

        change gets the index and a private copy, and says whether to store it. It is the quick road for what goes well:
        where False comes back nothing is stored, be the object absent, changed meanwhile or refused, and `update` finds
        out why. Raises what hinders all.
        """
        if self.keeps_versions or ctx.dry_run or not ctx.trusted:
            return [False] * len(names)
        writes: list[Replacement] = []
        indexes: list[int] = []
        for index, (namespace, name) in enumerate(names):
            found = self.cacher.get_nowait(namespace, name)
            if found is None:
                continue
            obj: Any = self._message.FromString(found.raw)
            if change(index, obj):
                obj.metadata.ClearField("resourceVersion")
                raw = obj.SerializeToString(deterministic=True)
                value = proto_codec.encode_envelope(self._version_of(obj), self.resource.kind, raw)
                writes.append(Replacement(found.key, value, found.rv, self.strategy.ttl_s(obj)))
                indexes.append(index)
        stored = [False] * len(names)
        if writes:
            with storage_errors():
                outcomes = await self._store.write_each(writes)
            for index, outcome in zip(indexes, outcomes, strict=True):
                stored[index] = isinstance(outcome, int)
        return stored

    async def set_statuses(
        self, ctx: WriteContext, names: Sequence[str], change: Callable[[int, Any], Any]
    ) -> list[bool]:
        """Change the statuses of objects that admission has judged already; for each whether it is as wanted now.

        change gets the index and a private copy, and makes the object to store of it, or raises APIError. It is the
        quick road for what goes well, as `set_each` is; where False comes back, `update` finds out why.
        """
        done = [False] * len(names)
        if self.keeps_versions or ctx.dry_run or self.strategy.may_take_long or ctx.subresource != "status":
            return done
        writes: list[Replacement] = []
        indexes: list[int] = []
        for index, name in enumerate(names):
            found = self.cacher.get_nowait(ctx.namespace, name)
            if found is None:
                continue
            ctx.name = name
            old: Any = self._message.FromString(found.raw)
            try:
                new = self._with_new_status(ctx, change(index, copy_of(old)), old)
            except APIError:
                continue
            if new is None:
                done[index] = True
            elif not deletion.is_finished(new.metadata, self.strategy.holds_object(new)):
                writes.append(Replacement(found.key, self._encode(new), found.rv, self.strategy.ttl_s(new)))
                indexes.append(index)
        if writes:
            with storage_errors():
                outcomes = await self._store.write_each(writes)
            for index, outcome in zip(indexes, outcomes, strict=True):
                done[index] = isinstance(outcome, int)
        return done

    def _with_new_status(self, ctx: WriteContext, new: Any, old: Any) -> Any | None:
        """What is to be stored of new, None where nothing differs. Raises Conflict, Invalid."""
        metadata.match_namespace(new.metadata, ctx.namespace if self.resource.namespaced else "")
        self._check_version(new, old)
        self._apply_defaults(ctx, new)
        self._keep_metadata(ctx, new, old)
        self.strategy.prepare_for_status_update(ctx, new, old)
        errors = self.strategy.validate_status_update(ctx, new, old)
        self._refuse(new.metadata.name, self._own(ctx, new, old) + errors)
        new.metadata.resourceVersion = old.metadata.resourceVersion
        changed = settle(new, old)
        metadata.raise_generation(new, old, changed)
        return new if changed else None

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

    def _apply_defaults(self, ctx: WriteContext, new: Any) -> None:
        if ctx.subresource == "status":
            self.strategy.apply_status_defaults(new)
        else:
            self.strategy.apply_defaults(new)

    async def _begin_update(self, ctx: WriteContext, new: Any, old: Any) -> Finish | None:
        return None if ctx.trusted or ctx.subresource == "status" else await self.strategy.begin_update(ctx, new, old)

    def _check_version(self, new: Any, old: Any) -> None:
        """Hold the object sent against the one stored. Raises Conflict, or Invalid where a version is needed."""
        asked = new.metadata.resourceVersion
        if asked and asked != old.metadata.resourceVersion:
            raise self._conflict(old.metadata.name)
        if not asked and not self.strategy.allow_unconditional_update:
            error = FieldError.invalid("metadata.resourceVersion", 0, "must be specified for an update")
            raise Invalid.of(self.resource.kind, old.metadata.name, [error], group=self.resource.group)
        if new.metadata.uid and new.metadata.uid != old.metadata.uid:
            why = (
                f"Precondition failed: UID in precondition: {new.metadata.uid}, UID in object meta: {old.metadata.uid}"
            )
            raise self._conflict(old.metadata.name, why)

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

    @staticmethod
    def _keep_metadata(ctx: WriteContext, new: Any, old: Any) -> None:
        """Put back what is not the caller's to change."""
        metadata.prepare_update(new, old)
        if ctx.trusted or (ctx.record_owner is None and not new.metadata.managedFields):
            del new.metadata.managedFields[:]
            new.metadata.managedFields.MergeFrom(old.metadata.managedFields)

    @staticmethod
    def _own(ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """Record whose the changes are; the faults of the metadata."""
        if ctx.record_owner is not None:
            ctx.record_owner(new, old)
        return metadata.validate_metadata_update(new.metadata, old.metadata)

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
        grace = strategy.grace_period_s(ctx, old, request.grace_period_s)
        new = copy_of(old)
        propagation = request.propagation
        deletion.apply_propagation(new.metadata, propagation)
        deletion.mark_deleted(new.metadata, grace, ctx.now)
        strategy.prepare_for_delete(ctx, new)
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

    # -- keys and bytes

    def key(self, namespace: str, name: str) -> str:
        """Key of an object in the store. Raises BadRequest for a namespaced object without namespace."""
        self._check_namespace(namespace)
        return f"{self._prefix}{namespace}/{name}" if self.resource.namespaced else f"{self._prefix}{name}"

    def _check_namespace(self, namespace: str) -> None:
        if self.resource.namespaced and not namespace:
            raise BadRequest(f"an empty namespace may not be set: {self.resource.plural} are namespaced")

    def _cached(self, namespace: str, name: str) -> Any | None:
        """A private copy of the cached object."""
        found = self.cacher.get_nowait(namespace, name)
        return None if found is None else self._message.FromString(found.raw)

    async def _read(self, key: str) -> Any | None:
        """What the store has now."""
        with storage_errors():
            return self._decode(await self._store.get(key))

    def _decode(self, found: KeyValue | None) -> Any | None:
        if found is None:
            return None
        obj: Any = self._message.FromString(proto_codec.decode_envelope(found.value)[2])
        obj.metadata.resourceVersion = str(found.mod_revision)
        return obj

    def _encode(self, obj: Any) -> bytes:
        """The bytes to store: the version is the store's own revision and is not among them."""
        version = obj.metadata.resourceVersion
        obj.metadata.ClearField("resourceVersion")
        raw = obj.SerializeToString(deterministic=True)
        if version:
            obj.metadata.resourceVersion = version
        return proto_codec.encode_envelope(self._version_of(obj), self.resource.kind, raw)

    def _version_of(self, _obj: Any) -> str:
        """The apiVersion that the object's bytes are in."""
        return self._api_version

    async def _upgraded(self, obj: Any) -> Any:
        """The object in the version stored now; asked only where `keeps_versions` is set."""
        return obj

    async def _is_outdated(self, _key: str) -> bool:
        """Whether what is stored is in another version; asked only where `keeps_versions` is set."""
        return False

    # -- refusals and warnings

    def _warn(self, ctx: WriteContext, obj: Any) -> None:
        if self.strategy.warnings is not None and not ctx.trusted:
            for text in self.strategy.warnings(obj):
                ctx.warn(text)

    def _refuse(self, name: str, errors: Sequence[FieldError]) -> None:
        if errors:
            # The schema and a kind's own rules may find the same fault; it is told once.
            told = list({(error.path, error.body): error for error in errors}.values())
            raise Invalid.of(self.resource.kind, name, told, group=self.resource.group)

    def _not_found(self, name: str) -> NotFound:
        return NotFound.of(self.resource.plural, name, group=self.resource.group)

    def _already_exists(self, name: str) -> AlreadyExists:
        return AlreadyExists.of(self.resource.plural, name, group=self.resource.group)

    def _conflict(self, name: str, why: str = Conflict.MODIFIED) -> Conflict:
        return Conflict.of(self.resource.plural, name, group=self.resource.group, why=why)


async def _end(finish: Finish | None, stored: bool) -> None:
    """End what a begin_ step opened. Where nobody knows whether the write happened there is nothing to end.

    What was reserved then stays so until the next start counts anew: better lost for a while than given out twice.
    """
    if finish is not None:
        await finish(stored)


def copy_of(obj: Message) -> Any:
    """A deep copy that may be changed."""
    clone = type(obj)()
    clone.CopyFrom(obj)
    return clone
