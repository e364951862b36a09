"""create: one object, or many in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tiphys_apiserver.admission.interface import Operation
from tiphys_apiserver.endpoints.batch import each
from tiphys_apiserver.endpoints.hall import Hall
from tiphys_apiserver.endpoints.pack import Pack
from tiphys_apiserver.registry.strategy import Creates
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.server.call import Call


async def create(hall: Hall, served: Served, call: Call, obj: Any, *, into: Creates | None = None) -> Any:
    """Store obj, which belongs to the call from here on; the object as stored. into takes it in place of the store.

    Raises AlreadyExists, Invalid, BadRequest, Forbidden.
    """
    ctx = hall.owned_context(served, call)
    ctx.creates = into
    admit = hall.admit(served, call, Operation.CREATE)
    return await served.served_form(await served.store.create(ctx, await served.stored_form(obj), admit))


async def create_batch(
    hall: Hall, served: Served, call: Call, objects: Sequence[Any], *, together: bool = False
) -> list[Any]:
    """For each the object as stored, or the APIError that refused it, in order.

    Each is created by itself; with together all are, in one transaction of the store, or none.
    """

    def of(obj: Any) -> Call:
        info = call.info
        if info.namespace or not served.info.namespaced:
            return call
        return replace(call, info=replace(info, namespace=obj.metadata.namespace))

    if not together:
        return await each(objects, lambda obj: create(hall, served, of(obj), obj))
    pack = Pack(served.store.create_together, 0 if call.dry_run else len(objects))
    return await pack.each(objects, lambda obj: create(hall, served, of(obj), obj, into=pack))
