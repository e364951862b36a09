"""The calls of each resource as OpenAPI operations, in one neutral form that v2 and v3 write their way. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tiphys_apimachinery.scheme import ResourceInfo, Subresource

_PRETTY = ("pretty", "string", "Indent the answer.")
_DRY_RUN = ("dryRun", "string", "All runs admission and validation and stores nothing.")
_MANAGER = ("fieldManager", "string", "Who makes the change.")
_VALIDATION = ("fieldValidation", "string", "What unknown and double fields lead to: Strict, Warn or Ignore.")
_DELETE = (
    _DRY_RUN,
    ("gracePeriodSeconds", "integer", "Seconds before the object is deleted; 0 deletes at once."),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Deletes an object that can't be read from the store.",
    ),
    ("orphanDependents", "boolean", "Deprecated; use propagationPolicy."),
    ("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
)
_SELECT = (
    ("allowWatchBookmarks", "boolean", "Sends BOOKMARK events."),
    ("continue", "string", "Token of the page before."),
    ("fieldSelector", "string", "Restricts the answer by fields."),
    ("labelSelector", "string", "Restricts the answer by labels."),
    ("limit", "integer", "Most objects of one page."),
    ("resourceVersion", "string", "How new the answer must be."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
    ("sendInitialEvents", "boolean", "Begins a watch with the state."),
    ("timeoutSeconds", "integer", "Ends the call after this time."),
)
_WATCH = (("watch", "boolean", "Streams changes in place of the list."),)

# Action -> query parameters as (name, type, description).
_QUERY: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "get": (),
    "list": (*_SELECT, *_WATCH),
    "post": (_DRY_RUN, _MANAGER, _VALIDATION),
    "put": (_DRY_RUN, _MANAGER, _VALIDATION),
    "patch": (_DRY_RUN, _MANAGER, _VALIDATION, ("force", "boolean", "Takes fields over; apply only.")),
    "delete": _DELETE,
    "deletecollection": (*_DELETE, *(s for s in _SELECT if s[0] != "allowWatchBookmarks")),
    "connect": (),
}
_OPERATION_WORDS = {
    "get": "read",
    "list": "list",
    "post": "create",
    "put": "replace",
    "patch": "patch",
    "delete": "delete",
    "deletecollection": "deleteCollection",
}
PATCH_TYPES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
READ_TYPES = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
WATCH_TYPES = ("application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")


@dataclass(frozen=True, slots=True)
class Operation:
    """One call: path and method, what goes in and comes out, as group, version and kind."""

    path: str
    method: str
    action: str
    operation_id: str
    gvk: tuple[str, str, str]
    namespaced: bool
    named: bool
    body: str
    answer: str
    query: tuple[tuple[str, str, str], ...]
    # No contract has the kind: it has no protobuf form, and nothing says how its lists merge.
    is_custom: bool = False

    @property
    def consumes(self) -> tuple[str, ...]:
        """Content types of the body."""
        if self.action != "patch":
            return ("*/*",)
        return tuple(t for t in PATCH_TYPES if not (self.is_custom and "strategic" in t))

    @property
    def produces(self) -> tuple[str, ...]:
        """Content types of the answer."""
        found = READ_TYPES + (WATCH_TYPES if self.action == "list" else ())
        return tuple(t for t in found if not (self.is_custom and "protobuf" in t))


def base_path(group: str, version: str) -> str:
    """/api/v1 or /apis/GROUP/VERSION."""
    return f"/apis/{group}/{version}" if group else f"/api/{version}"


def operations_of(resource: ResourceInfo) -> Iterator[Operation]:
    """Every call of the resource and its subresources."""
    base = base_path(resource.group, resource.version)
    scope = f"{base}/namespaces/{{namespace}}" if resource.namespaced else base
    collection = f"{scope}/{resource.plural}"
    item = f"{collection}/{{name}}"
    verbs = set(resource.verbs)
    table = (
        ("list", "list", "get", collection, False),
        ("create", "post", "post", collection, False),
        ("deletecollection", "deletecollection", "delete", collection, False),
        ("get", "get", "get", item, True),
        ("update", "put", "put", item, True),
        ("patch", "patch", "patch", item, True),
        ("delete", "delete", "delete", item, True),
    )
    for verb, action, method, path, named in table:
        if verb in verbs:
            yield _operation(resource, None, action, method=method, path=path, named=named)
    if resource.namespaced and "list" in verbs:
        yield _operation(resource, None, "list", method="get", path=f"{base}/{resource.plural}", named=False)
    for sub in resource.subresources.values():
        yield from _subresource_operations(resource, sub, f"{item}/{sub.name}")


def _subresource_operations(resource: ResourceInfo, sub: Subresource, path: str) -> Iterator[Operation]:
    if sub.connect:
        paths = (path, f"{path}/{{path}}") if sub.trailing_path else (path,)
        for place in paths:
            for method in sub.methods:
                yield _operation(resource, sub, "connect", method=method.lower(), path=place, named=True)
        return
    for verb, action in (("create", "post"), ("get", "get"), ("update", "put"), ("patch", "patch")):
        if verb in sub.verbs:
            yield _operation(resource, sub, action, method=action, path=path, named=True)


def _operation(
    resource: ResourceInfo, sub: Subresource | None, action: str, *, method: str, path: str, named: bool
) -> Operation:
    kind = sub.kind if sub else resource.kind
    group, version = (sub.group, sub.version) if sub and sub.version else (resource.group, resource.version)
    word = _OPERATION_WORDS.get(action) or f"connect{method.capitalize()}"
    in_namespace = "{namespace}" in path
    name = resource.kind + ("".join(p.capitalize() for p in sub.name.split("/")) if sub else "")
    everywhere = "ForAllNamespaces" if resource.namespaced and not in_namespace else ""
    operation_id = (
        word
        + _camel(resource.group)
        + resource.version.capitalize()
        + ("Namespaced" if in_namespace else "")
        + name
        + ("WithPath" if path.endswith("{path}") else "")
        + everywhere
    )
    takes_body = action in ("post", "put")
    answer = {"list": f"{kind}List", "delete": "Status", "deletecollection": "Status", "connect": ""}.get(action, kind)
    return Operation(
        path=path,
        method=method,
        action=action,
        operation_id=operation_id,
        gvk=(group, version, kind),
        namespaced=in_namespace,
        named=named,
        body=kind if takes_body else "",
        answer=answer,
        query=(*_QUERY[action], _PRETTY) if action != "connect" else (),
        is_custom=resource.is_custom,
    )


def _camel(group: str) -> str:
    """rbac.authorization.k8s.io -> RbacAuthorization; core -> Core."""
    name = group.removesuffix(".k8s.io") or "core"
    return "".join(part.capitalize() for part in name.split("."))
