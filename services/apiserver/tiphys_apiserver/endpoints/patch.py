"""patch: changes parts of an object, in one of four ways; again on the newest object when another writer came first."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from tiphys_apimachinery.codec import json_codec, yaml_codec
from tiphys_apimachinery.dynamic import DynamicObject
from tiphys_apimachinery.errors import APIError, BadRequest, UnsupportedMediaType
from tiphys_apimachinery.patch import json_patch, merge, strategic
from tiphys_apimachinery.schema import Kind, descriptor_of, fields_by_json
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.endpoints.batch import WIDTH, each
from tiphys_apiserver.endpoints.hall import Hall
from tiphys_apiserver.endpoints.ownership import Ownership
from tiphys_apiserver.registry.metadata import match_name
from tiphys_apiserver.registry.strategy import copy_field
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.registry.write_steps import copy_of
from tiphys_apiserver.server.call import Call


class PatchKind(enum.Enum):
    """How a patch is written; the value is its content type."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


BY_CONTENT_TYPE: Mapping[str, PatchKind] = {kind.value: kind for kind in PatchKind}
# What may be sent to a subresource that is not the object itself.
_SERVED = (PatchKind.JSON.value, PatchKind.MERGE.value, PatchKind.STRATEGIC.value)
# Operations of one JSON patch. Source: apiserver pkg/endpoints/handlers/patch.go, maxJSONPatchOperations.
_MAX_OPERATIONS = 10000


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch as it came; force is of server-side apply only."""

    kind: PatchKind
    body: bytes
    force: bool = False


async def patch(hall: Hall, served: Served, call: Call, wanted: Patch) -> tuple[Any, bool]:
    """Patch the object; the object as stored, and whether it is new (as only apply can make one).

    Raises NotFound, Conflict, Invalid (a patch that does not fit the object), BadRequest, Forbidden.
    """
    if wanted.kind is PatchKind.APPLY:
        return await _apply(hall, served, call, wanted)
    document = read_document(wanted)

    async def change(stored: Any) -> Any:
        current = await served.served_form(stored)
        patched = patch_object(served.info.message, current, wanted.kind, document, call)
        match_name(patched.metadata, call.info.name, call.info.namespace if served.info.namespaced else "")
        return await served.stored_form(patched)

    ctx = hall.owned_context(served, call)
    admit = hall.admit(served, call, Operation.UPDATE)
    stored, is_new = await served.store.update(ctx, call.info.name, change, admit)
    return await served.served_form(stored), is_new


async def patch_batch(
    hall: Hall, served: Served, call: Call, wanted: Sequence[tuple[str, Patch]]
) -> list[APIError | None]:
    """Patch each by itself, by name; for each the APIError that refused it, in order.

    Statuses go the quick road, in one go; all else, and what fails there, goes the long one, each by itself.
    """

    async def one(item: tuple[str, Patch]) -> None:
        name, change = item
        if not name:
            raise BadRequest("name is required")
        await patch(hall, served, replace(call, info=replace(call.info, name=name)), change)

    results: list[APIError | None] = []
    for start in range(0, len(wanted), WIDTH):
        some = wanted[start : start + WIDTH]
        done = await _patch_statuses(hall, served, call, some)
        slow = iter(await each([item for item, is_done in zip(some, done, strict=True) if not is_done], one))
        results += [None if is_done else next(slow) for is_done in done]
    return results


async def _patch_statuses(hall: Hall, served: Served, call: Call, wanted: Sequence[tuple[str, Patch]]) -> list[bool]:
    """Patch those that are as the cache has them, where no admission plug-in needs to see each of them."""
    info, resource = call.info, served.store.resource
    is_home = served.info is resource and served.remote is None and bool(info.namespace) == resource.namespaced
    if not is_home or info.subresource != "status" or not await _is_plain(hall, served, call):
        return [False] * len(wanted)

    def change(index: int, current: Any) -> Any:
        name, asked = wanted[index]
        patched = patch_object(resource.message, current, asked.kind, read_document(asked), call)
        match_name(patched.metadata, name, info.namespace)
        return patched

    names = [name for name, _ in wanted]
    return await served.store.set_statuses(hall.owned_context(served, call), names, change)


async def _is_plain(hall: Hall, served: Served, call: Call) -> bool:
    """Whether admission lets all such writes of the caller pass; False where it must see each."""
    resource = served.store.resource
    nothing: Any = resource.message()
    attributes = AdmissionAttributes(
        Operation.UPDATE, resource, call.info.subresource, call.info.namespace, "", nothing, nothing,
        call.user, call.dry_run, None, call.warn, call.waited,
    )  # fmt: skip
    return await hall.admits_alike(attributes)


async def _apply(hall: Hall, served: Served, call: Call, wanted: Patch) -> tuple[Any, bool]:
    """Server-side apply: make the object if it is not there, and own what the configuration names."""
    config = yaml_codec.parse(wanted.body)
    ctx = hall.write_context(call)
    ownership = Ownership(served, call, ctx.now)
    message = served.info.message

    async def change(stored: Any) -> Any:
        if stored is None:
            await hall.check_create(call)
        current = await served.served_form(stored) if stored is not None else None
        patched: Any = json_codec.from_json(message, ownership.apply(current, config, force=wanted.force))
        match_name(patched.metadata, call.info.name, call.info.namespace if served.info.namespaced else "")
        return await served.stored_form(patched)

    # The change itself has said who owns what; what the server fills in after it belongs to nobody.
    ctx.record_owner = _as_applied
    admit = hall.admit(served, call, Operation.UPDATE)
    may_create = not call.info.subresource
    stored, is_new = await served.store.update(ctx, call.info.name, change, admit, may_create=may_create)
    return await served.served_form(stored), is_new


def _as_applied(_new: Any, _old: Any) -> None:
    return None


def read_document(wanted: Patch) -> Any:
    """The patch as plain values. Raises BadRequest, and UnsupportedMediaType for apply, which needs an object."""
    if wanted.kind is PatchKind.APPLY:
        raise UnsupportedMediaType.of(_SERVED)
    try:
        document = orjson.loads(wanted.body)
    except orjson.JSONDecodeError as err:
        raise BadRequest(f"error decoding patch: {err}") from err
    if wanted.kind is PatchKind.JSON:
        if not isinstance(document, list):
            raise BadRequest("error decoding patch: a JSON patch is a list of operations")
        if len(document) > _MAX_OPERATIONS:
            raise BadRequest(
                f"The allowed maximum operations in a JSON patch is {_MAX_OPERATIONS}, got {len(document)}"
            )
    elif not isinstance(document, dict):
        raise BadRequest("error decoding patch: a merge patch is an object")
    return document


def patch_object(cls: Any, current: Any, kind: PatchKind, document: Any, call: Call) -> Any:
    """The object that a patch makes of current. Raises BadRequest, Invalid."""
    is_dynamic = issubclass(cls, DynamicObject)
    if is_dynamic and kind is PatchKind.STRATEGIC:
        # How lists merge is said by no contract.
        raise UnsupportedMediaType.of((PatchKind.JSON.value, PatchKind.MERGE.value, PatchKind.APPLY.value))
    partial, uid, touched = document, "", None
    if kind is not PatchKind.JSON and not is_dynamic:
        partial, uid = _without_uid(document)
        touched = _touched(cls, partial)
    if touched is None:
        return _decode(cls, _patch_values(cls, json_codec.to_json(current), kind, document), call)
    # Most patches are of one part: the others, of a pod the most by far, need not become JSON and back.
    before: dict[str, Any] = {}
    for name in touched:
        if current.HasField(name):
            before[name] = json_codec.to_json(getattr(current, name), with_type_meta=False)
    parts = _decode(cls, _patch_values(cls, before, kind, partial), call)
    patched = copy_of(current)
    for name in touched:
        copy_field(patched, parts, name)
    if uid:
        patched.metadata.uid = uid
    return patched


def _without_uid(document: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The patch without metadata that only says which very object is meant, as many do, and that uid."""
    metadata = document.get("metadata")
    if len(document) < 2 or not isinstance(metadata, dict) or metadata.keys() != {"uid"}:
        return document, ""
    uid = metadata["uid"]
    if not isinstance(uid, str) or not uid:
        return document, ""
    return {name: part for name, part in document.items() if name != "metadata"}, uid


def _touched(cls: Any, document: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The parts of the object that a merge patch is about; None where it is about more than parts."""
    members = fields_by_json(descriptor_of(cls))
    for name in document:
        field = members.get(name)
        if field is None or field.kind is not Kind.STRUCT or not field.is_singular or field.name != name:
            return None
    return tuple(document)


def _patch_values(cls: Any, before: Any, kind: PatchKind, document: Any) -> Any:
    if kind is PatchKind.JSON:
        return json_patch.apply_patch(before, document)
    if kind is PatchKind.MERGE:
        return merge.apply_patch(before, document)
    return strategic.apply_patch(cls, before, document)


def _decode(cls: Any, after: Any, call: Call) -> Any:
    if not isinstance(after, dict):
        raise BadRequest("the patch leaves no object")
    sink = json_codec.FieldSink() if call.field_validation != "Ignore" else None
    patched = json_codec.from_json(cls, after, sink)
    if sink is not None:
        if call.field_validation == "Strict":
            error = json_codec.strict_error(cls, sink)
            if error is not None:
                raise error
        for text in sink.messages():
            call.warn(text)
    return patched
