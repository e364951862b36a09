"""create: one object, or many in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
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
        results: list[Any] = list(objects)
        stored = await _create_quickly(hall, served, call, objects)
        others = [index for index, done in enumerate(stored) if not done]
        slow = await each(others, lambda index: create(hall, served, of(objects[index]), objects[index]))
        for index, result in zip(others, slow, strict=True):
            results[index] = result
        return results
    pack = Pack(served.store.create_together, 0 if call.dry_run else len(objects))
    return await pack.each(objects, lambda obj: create(hall, served, of(obj), obj, into=pack))


async def _create_quickly(hall: Hall, served: Served, call: Call, objects: Sequence[Any]) -> list[bool]:
    """Create those that are in order, in one go, where no admission plug-in needs to see each of them."""
    info = call.info
    resource = served.store.resource
    is_home = served.info is resource and served.remote is None and bool(info.namespace) == resource.namespaced
    if not (objects and is_home and served.store.strategy.alike_to_admission):
        return [False] * len(objects)
    attributes = AdmissionAttributes(
        Operation.CREATE, resource, info.subresource, info.namespace, "", objects[0], None,
        call.user, call.dry_run, None, call.warn, call.waited,
    )  # fmt: skip
    if not await hall.admits_alike(attributes):
        return [False] * len(objects)
    return await served.store.create_each(hall.owned_context(served, call), objects)
