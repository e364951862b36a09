"""Reads from method, path and query what a request is about, as authorization and routing ask it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

# Verbs of methods on one object and on a collection.
_OBJECT_VERBS = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
_COLLECTION_VERBS = {
    "GET": "list",
    "HEAD": "list",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "deletecollection",
}
# Parts after a namespace's name that are subresources of the namespace and no resources in it.
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})
# Longer paths are read each time.
_LONGEST = 256


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What a request asks for.

    For a resource request verb is one of get list watch create update patch delete
    deletecollection; else it is the lower-case method. trailing is what follows the subresource,
    without slash at its start (pods/NAME/proxy/TRAILING). namespace is "" for cluster scope and
    for all namespaces.
    """

    path: str
    verb: str
    is_resource_request: bool = False
    api_group: str = ""
    api_version: str = ""
    namespace: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    trailing: str = ""


def selected_name(field_selector: str) -> str:
    """The name that a field selector asks for with metadata.name=NAME; empty when it asks for none."""
    for term in field_selector.split(","):
        name, _, value = term.replace("==", "=").partition("=")
        if name == "metadata.name":
            return value
    return ""


def parse(method: str, path: str, *, watch: bool = False, selected_name: str = "") -> RequestInfo:
    """What method and path say; path is decoded and without query.

    /api and /apis documents, and every other path, are no resource requests. selected_name is the
    name of a fieldSelector metadata.name=…, which counts as the request's name for list, watch and
    deletecollection, so that rules with resourceNames can allow it. What was asked last is remembered.
    """
    if len(path) + len(selected_name) > _LONGEST:
        return _parse(method, path, watch, selected_name)
    return _known(method, path, watch, selected_name)


def _parse(method: str, path: str, watch: bool, selected_name: str) -> RequestInfo:
    parts = path.split("/")
    # parts[0] is empty: paths begin with a slash.
    if len(parts) > 3 and parts[1] == "api":
        group, version, rest = "", parts[2], parts[3:]
    elif len(parts) > 4 and parts[1] == "apis":
        group, version, rest = parts[2], parts[3], parts[4:]
    else:
        return RequestInfo(path, method.lower())
    if rest[0] == "" or version == "":
        return RequestInfo(path, method.lower())
    # The old form /watch/... is still spoken by some clients.
    if rest[0] == "watch" and len(rest) > 1:
        watch, rest = True, rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1 and rest[1]:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] and rest[2] not in _NAMESPACE_SUBRESOURCES:
            rest = rest[2:]
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    verb = _verb(method, name, watch)
    if not name and selected_name and verb in ("list", "watch", "deletecollection"):
        name = selected_name
    return RequestInfo(
        path,
        verb,
        True,
        group,
        version,
        namespace,
        rest[0],
        subresource,
        name,
        "/".join(rest[3:]),
    )


_known = lru_cache(maxsize=1024)(_parse)


def _verb(method: str, name: str, watch: bool) -> str:
    if watch and method in ("GET", "HEAD"):
        return "watch"
    table = _OBJECT_VERBS if name else _COLLECTION_VERBS
    return table.get(method, method.lower())
