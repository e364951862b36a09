"""Writes of many objects of one resource in one go: the quick road, for what goes well.

Each of the calls judges what it is given by what the watch cache has, hands all that is in order to the store together,
and says of each whether it was stored. Where it was not nothing is changed, and the single call finds out why: whoever
calls these asks it next. No admission plug-in is called here; the endpoints take this road only where none need see
each of the objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tiphys_apimachinery.codec import proto_codec
from tiphys_apimachinery.errors import APIError
from tiphys_apiserver.registry import deletion, metadata
from tiphys_apiserver.registry.deletion import DeleteRequest
from tiphys_apiserver.registry.differences import settle
from tiphys_apiserver.registry.storage_errors import storage_errors
from tiphys_apiserver.registry.strategy import Strategy, WriteContext
from tiphys_apiserver.registry.write_steps import WriteSteps, copy_of
from tiphys_apiserver.storage.interface import NewKey, Replacement


class BatchWrites(WriteSteps):
    """The writes of many."""

    async def create_each(self, ctx: WriteContext, objects: Sequence[Any]) -> list[bool]:
        """Store new objects that admission has judged already; for each whether it was stored, with its version then.

        It is the quick road for what goes well: where False comes back nothing is stored, be the name taken or to be
        made, or the object refused, and `create` finds out why. Raises what hinders all.
        """
        stored = [False] * len(objects)
        strategy = self.strategy
        if ctx.dry_run or strategy.may_take_long or type(strategy).begin_create is not Strategy.begin_create:
            return stored
        writes: dict[int, NewKey] = {}
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
            writes[index] = NewKey(key, self._encode(obj), self.strategy.ttl_s(obj))
        for index, revision in (await self._write(writes)).items():
            objects[index].metadata.resourceVersion = str(revision)
            stored[index] = True
        return stored

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
        writes: dict[int, Replacement] = {}
        for index, (namespace, name) in enumerate(names):
            found = self.cacher.get_nowait(namespace, name)
            if found is None:
                continue
            obj: Any = self._message.FromString(found.raw)
            if change(index, obj):
                obj.metadata.ClearField("resourceVersion")
                raw = obj.SerializeToString(deterministic=True)
                value = proto_codec.encode_envelope(self._version_of(obj), self.resource.kind, raw)
                writes[index] = Replacement(found.key, value, found.rv, self.strategy.ttl_s(obj))
        stored = await self._write(writes)
        return [index in stored for index in range(len(names))]

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
        writes: dict[int, Replacement] = {}
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
                writes[index] = Replacement(found.key, self._encode(new), found.rv, self.strategy.ttl_s(new))
        for index in await self._write(writes):
            done[index] = True
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

    async def mark_each(self, ctx: WriteContext, wanted: Sequence[tuple[str, DeleteRequest]]) -> list[bool]:
        """Delete objects that stay for a while, by name, where admission need not see them; for each whether it is so.

        It is the quick road for what goes well, as `set_each` is; where False comes back nothing is changed, be the
        object absent, not the one that is meant, changed meanwhile or to be removed at once, and `delete` does it or
        finds out why. Kinds that know no grace, and deletes that want none, are not looked at twice.
        """
        done = [False] * len(wanted)
        knows_grace = type(self.strategy).grace_period_s is not Strategy.grace_period_s
        if self.keeps_versions or ctx.dry_run or not knows_grace:
            return done
        writes: dict[int, Replacement] = {}
        for index, (name, request) in enumerate(wanted):
            found = self.cacher.get_nowait(ctx.namespace, name) if request.grace_period_s != 0 else None
            if found is None:
                continue
            ctx.name = name
            old: Any = self._message.FromString(found.raw)
            try:
                deletion.check_preconditions(request, old, self.resource.plural, self.resource.group)
                new = self._marked(ctx, old, request)
            except APIError:
                continue
            if deletion.is_finished(new.metadata, self.strategy.holds_object(new)):
                continue
            if new == old:
                done[index] = True
            else:
                writes[index] = Replacement(found.key, self._encode(new), found.rv)
        for index in await self._write(writes):
            done[index] = True
        return done

    async def _write(self, writes: Mapping[int, NewKey | Replacement]) -> dict[int, int]:
        """The revision of each write that was done, by the write's key here."""
        if not writes:
            return {}
        with storage_errors():
            outcomes = await self._store.write_each(list(writes.values()))
        return {index: one for index, one in zip(writes, outcomes, strict=True) if isinstance(one, int)}
