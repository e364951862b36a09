"""Options of requests from query and body."""

from __future__ import annotations

from tiphys_apimachinery.errors import BadRequest, Invalid, UnsupportedMediaType
from tiphys_apimachinery.field_error import FieldError
from tiphys_apiserver.endpoints.patch import BY_CONTENT_TYPE, Patch, PatchKind
from tiphys_apiserver.rest.decode import IGNORE, STRICT, WARN
from tiphys_apiserver.rest.exchange import Exchange
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.storage.list_query import ListQuery

_VALIDATIONS = (IGNORE, WARN, STRICT)


def read_write_options(exchange: Exchange, call: Call) -> None:
    """Put dryRun, fieldManager and fieldValidation of the query into the call. Raises Invalid."""
    query = exchange.query
    if not query:
        return
    errors = []
    dry_run = query.get("dryRun", "")
    if dry_run not in ("", "All"):
        errors.append(FieldError.not_supported("dryRun", dry_run, ("All",)))
    validation = query.get("fieldValidation", "")
    if validation not in ("", *_VALIDATIONS):
        errors.append(FieldError.not_supported("fieldValidation", validation, ("", *_VALIDATIONS)))
    manager = query.get("fieldManager", "")
    if len(manager) > 128:
        errors.append(FieldError.too_long("fieldManager", 128))
    if errors:
        kind = {"create": "CreateOptions", "patch": "PatchOptions"}.get(call.info.verb, "UpdateOptions")
        raise Invalid.of(kind, "", errors, group="meta.k8s.io")
    call.dry_run = dry_run == "All"
    call.field_validation = validation
    call.field_manager = manager


def list_query(exchange: Exchange) -> ListQuery:
    """The options of a list. Raises BadRequest."""
    query = exchange.query
    if not query:
        return ListQuery()
    return ListQuery(
        resource_version=query.get("resourceVersion", ""),
        resource_version_match=query.get("resourceVersionMatch", ""),
        limit=exchange.number("limit") or 0,
        continue_token=query.get("continue", ""),
    )


async def read_patch(exchange: Exchange, call: Call) -> Patch:
    """The patch in a body. Raises UnsupportedMediaType for a type that is none."""
    content_type = exchange.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    kind = BY_CONTENT_TYPE.get(content_type)
    if kind is None:
        raise UnsupportedMediaType.of(BY_CONTENT_TYPE)
    if kind is not PatchKind.APPLY and "force" in exchange.query:
        raise BadRequest("force is only supported for apply patches")
    return Patch(kind, await exchange.body(), exchange.flag("force"))
