"""update: one object, or one of those of its subresources that are the object itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tiphys_apiserver.admission.interface import Operation
from tiphys_apiserver.endpoints.batch import each
from tiphys_apiserver.endpoints.hall import Hall
from tiphys_apiserver.registry.metadata import match_name
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.registry.write_steps import copy_of
from tiphys_apiserver.server.call import Call

# Subresources whose body is the object itself.
OBJECT_SUBRESOURCES = frozenset({"status", "ephemeralcontainers", "resize", "approval", "finalize"})


async def update(hall: Hall, served: Served, call: Call, obj: Any) -> tuple[Any, bool]:
    """Replace the object by obj; the object as stored, and whether it is new.

    Raises NotFound, Conflict, Invalid, BadRequest, Forbidden.
    """
    match_name(obj.metadata, call.info.name, call.info.namespace if served.info.namespaced else "")
    wanted = await served.stored_form(obj)

    async def change(current: Any) -> Any:
        if current is None:
            await hall.check_create(call)
        return copy_of(wanted)

    ctx = hall.owned_context(served, call)
    admit = hall.admit(served, call, Operation.UPDATE)
    may_create = served.store.strategy.allow_create_on_update and not call.info.subresource
    stored, is_new = await served.store.update(ctx, call.info.name, change, admit, may_create=may_create)
    return await served.served_form(stored), is_new


async def update_batch(hall: Hall, served: Served, call: Call, objects: Sequence[Any]) -> list[Any]:
    """Replace each by itself; for each the object as stored, or the APIError that refused it, in order."""

    async def one(obj: Any) -> Any:
        stored, _ = await update(hall, served, replace(call, info=replace(call.info, name=obj.metadata.name)), obj)
        return stored

    return await each(objects, one)
