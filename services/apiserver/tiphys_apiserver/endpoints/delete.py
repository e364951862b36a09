"""delete: one object, or all that selectors choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.errors import APIError, BadRequest, NotFound
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.endpoints.batch import WIDTH, each
from tiphys_apiserver.endpoints.hall import Hall
from tiphys_apiserver.endpoints.list import list_objects
from tiphys_apiserver.registry.deletion import DeleteRequest, read_options
from tiphys_apiserver.registry.store import Deleted
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.storage.list_query import ListQuery


async def delete(hall: Hall, served: Served, call: Call, options: meta_pb2.DeleteOptions) -> Deleted:
    """Delete the object, or mark it. Raises NotFound, Conflict, Invalid, Forbidden."""
    request = _request(served, call, options)
    deleted = await _delete(hall, served, call, options, request=request)
    return replace(deleted, object=await served.served_form(deleted.object))


def _request(served: Served, call: Call, options: meta_pb2.DeleteOptions) -> DeleteRequest:
    """What the options ask of this resource; a dry run becomes one of the call. Raises Invalid, BadRequest."""
    request = read_options(options)
    if request.propagation is None:
        request = replace(request, propagation=served.store.strategy.default_propagation)
    if call.dry_run or request.dry_run:
        call.dry_run = True
        request = replace(request, dry_run=True)
    return request


async def _delete(
    hall: Hall, served: Served, call: Call, options: meta_pb2.DeleteOptions, *, request: DeleteRequest, name: str = ""
) -> Deleted:
    ctx = hall.write_context(call)
    if not served.info.namespaced:
        ctx.namespace = ""
    admit = hall.admit(served, call, Operation.DELETE, options)
    return await served.store.delete(ctx, name or call.info.name, request, admit)


async def delete_batch(
    hall: Hall, served: Served, call: Call, wanted: Sequence[tuple[str, str]], *, options: meta_pb2.DeleteOptions
) -> list[APIError | None]:
    """Delete each by itself, by name and (where there is one) uid; for each the APIError that refused it, in order.

    What stays for a while, as pods on nodes do, goes the quick road, in one go; all else, and what fails there, goes
    the long one, each by itself.
    """
    request = _request(served, call, options)

    async def one(item: tuple[str, str]) -> None:
        name, uid = item
        if not name:
            raise BadRequest("name is required")
        said = options
        if uid:
            said = meta_pb2.DeleteOptions()
            said.CopyFrom(options)
            said.preconditions.uid = uid
        await _delete(hall, served, call, said, request=_of_uid(request, uid), name=name)

    results: list[APIError | None] = []
    for start in range(0, len(wanted), WIDTH):
        some = wanted[start : start + WIDTH]
        meant = [(name, _of_uid(request, uid)) for name, uid in some]
        done = await _mark_quickly(hall, served, call, meant, options=options)
        slow = iter(await each([item for item, is_done in zip(some, done, strict=True) if not is_done], one))
        results += [None if is_done else next(slow) for is_done in done]
    return results


def _of_uid(request: DeleteRequest, uid: str) -> DeleteRequest:
    return replace(request, uid=uid) if uid else request


async def _mark_quickly(
    hall: Hall,
    served: Served,
    call: Call,
    wanted: Sequence[tuple[str, DeleteRequest]],
    *,
    options: meta_pb2.DeleteOptions,
) -> list[bool]:
    """Mark those that stay for a while and are as the cache has them, where admission need not see each of them."""
    info, resource = call.info, served.store.resource
    is_home = served.info is resource and served.remote is None and bool(info.namespace) and resource.namespaced
    if not is_home:
        return [False] * len(wanted)
    attributes = AdmissionAttributes(
        Operation.DELETE, resource, info.subresource, info.namespace, "", None, resource.message(),
        call.user, call.dry_run, options, call.warn, call.waited,
    )  # fmt: skip
    if not await hall.admits_alike(attributes):
        return [False] * len(wanted)
    return await served.store.mark_each(hall.write_context(call), wanted)


async def delete_collection(
    hall: Hall, served: Served, call: Call, query: ListQuery, *, options: meta_pb2.DeleteOptions
) -> list[Any]:
    """Delete each object chosen; those deleted. One that vanishes meanwhile is passed over."""
    page = await list_objects(served, call, query)
    gone: list[Any] = []
    for cached in page.items:
        one = replace(call, info=replace(call.info, name=cached.name, namespace=cached.namespace))
        try:
            gone.append((await delete(hall, served, one, options)).object)
        except NotFound:
            continue
    return gone
