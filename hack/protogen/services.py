"""Writes one typed gRPC service for each resource, in the wire layout of tiphys.apiserver.v1."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hack.protogen.facts import Record
from hack.protogen.layout import group_folder

META = ".k8s.io.apimachinery.pkg.apis.meta.v1."
STATUS = META + "Status"
SCALE = ".k8s.io.api.autoscaling.v1.Scale"
WIRE = ".tiphys.apiserver.v1."

# (type, name, number, doc); the type OBJECT stands for the kind of the resource.
Fields = tuple[tuple[str, str, int, str], ...]
OBJECT = "OBJECT"
_NAMESPACE = ("string", "namespace", 1, "")
_NAME = ("string", "name", 2, "")
_SELECTORS = (("string", "label_selector", 2, ""), ("string", "field_selector", 3, ""))
_ANSWER: Fields = ((OBJECT, "object", 1, ""),)
_LIST_ANSWER: Fields = ((META + "ListMeta", "metadata", 1, ""), (f"repeated {OBJECT}", "items", 2, ""))
_WRITE: Fields = (
    ("bool", "dry_run", 3, "Runs admission and validation and stores nothing."),
    ("string", "field_manager", 4, ""),
    ("string", "field_validation", 5, "Strict, Warn or Ignore."),
)


@dataclass(frozen=True, slots=True)
class Method:
    """One call: its doc and the fields of request and response."""

    name: str
    doc: str
    request: Fields
    response: Fields
    client_stream: bool = False
    server_stream: bool = False
    service_only: str = ""


VERBS: Mapping[str, Method] = {
    "get": Method(
        "Get",
        "Reads one object.",
        (_NAMESPACE, _NAME, ("string", "resource_version", 3, "Answer is not older than this.")),
        _ANSWER,
    ),
    "list": Method(
        "List",
        "Reads many objects, page by page where limit is set.",
        (
            _NAMESPACE,
            *_SELECTORS,
            ("int64", "limit", 4, "Most objects of one page; 0 means all."),
            ("string", "continue_token", 5, "Token of the page before."),
            ("string", "resource_version", 6, ""),
            ("string", "resource_version_match", 7, "Exact or NotOlderThan."),
        ),
        _LIST_ANSWER,
    ),
    "watch": Method(
        "Watch",
        "Follows changes, in batches and in order.",
        (
            _NAMESPACE,
            *_SELECTORS,
            ("string", "resource_version", 4, "Events begin right after this."),
            ("string", "resource_version_match", 5, ""),
            ("bool", "allow_watch_bookmarks", 6, ""),
            ("bool", "send_initial_events", 7, "Sends the state as ADDED events first."),
        ),
        (("repeated EVENT", "events", 1, ""),),
        server_stream=True,
    ),
    "create": Method("Create", "Creates one object.", (_NAMESPACE, (OBJECT, "object", 2, ""), *_WRITE), _ANSWER),
    "update": Method(
        "Update",
        "Replaces one object, or a subresource of it.",
        (
            _NAMESPACE,
            (OBJECT, "object", 2, ""),
            *_WRITE,
            ("string", "name", 6, ""),
            ("string", "subresource", 7, "Such as status."),
        ),
        _ANSWER,
    ),
    "patch": Method(
        "Patch",
        "Changes parts of one object.",
        (
            _NAMESPACE,
            _NAME,
            (WIRE + "PatchType", "patch_type", 3, ""),
            ("bytes", "patch", 4, "The patch as JSON text."),
            ("string", "subresource", 5, ""),
            ("bool", "dry_run", 6, ""),
            ("string", "field_manager", 7, ""),
            ("bool", "force", 8, "Takes fields over from other managers; apply only."),
            ("string", "field_validation", 9, ""),
        ),
        _ANSWER,
    ),
    "delete": Method(
        "Delete", "Deletes one object.", (_NAMESPACE, _NAME, (META + "DeleteOptions", "options", 3, "")), _ANSWER
    ),
    "deletecollection": Method(
        "DeleteCollection",
        "Deletes every object that the selectors choose.",
        (_NAMESPACE, *_SELECTORS, (META + "DeleteOptions", "options", 4, "")),
        _LIST_ANSWER,
    ),
}
BATCH_CREATE = Method(
    "BatchCreate",
    "Creates many objects; each fails or succeeds by itself, unless it is all or nothing.",
    (
        _NAMESPACE,
        (f"repeated {OBJECT}", "objects", 2, ""),
        ("bool", "dry_run", 3, ""),
        ("string", "field_manager", 4, ""),
        ("bool", "all_or_nothing", 5, "At most 128 objects, in one transaction, or none of them."),
    ),
    (("repeated RESULT", "results", 1, "In the order of the request."),),
)
BATCH_UPDATE_STATUS = Method(
    "BatchUpdateStatus",
    "Replaces the statuses of many objects of one namespace; each fails or succeeds by itself.",
    (
        _NAMESPACE,
        (f"repeated {OBJECT}", "objects", 2, ""),
        ("bool", "dry_run", 3, ""),
        ("string", "field_manager", 4, ""),
    ),
    (("repeated RESULT", "results", 1, "In the order of the request."),),
)
# A Status is enough of an answer: nobody who ends or marks many objects looks at what is left of each.
_STATUSES: Fields = ((f"repeated {STATUS}", "statuses", 1, "In the order of the request; code 200 for success."),)
BATCH_PATCH = Method(
    "BatchPatch",
    "Changes parts of many objects of one namespace; each fails or succeeds by itself.",
    (
        _NAMESPACE,
        (WIRE + "PatchType", "patch_type", 2, "Any but apply."),
        (f"repeated {WIRE}NamedPatch", "patches", 3, ""),
        ("string", "subresource", 4, "Such as status."),
        ("bool", "dry_run", 5, ""),
        ("string", "field_manager", 6, ""),
        ("string", "field_validation", 7, ""),
    ),
    _STATUSES,
)
BATCH_DELETE = Method(
    "BatchDelete",
    "Deletes many objects of one namespace; each fails or succeeds by itself.",
    (
        _NAMESPACE,
        (f"repeated {WIRE}NamedDelete", "deletes", 2, ""),
        (META + "DeleteOptions", "options", 3, "For each of them."),
    ),
    _STATUSES,
)
UPDATE_STATUS = Method(
    "UpdateStatus",
    "Replaces the status of one object.",
    (_NAMESPACE, (OBJECT, "object", 2, ""), *_WRITE, ("string", "name", 6, "")),
    _ANSWER,
)


def _create_sub(name: str, doc: str, body: str) -> Method:
    request: Fields = (_NAMESPACE, (body, "object", 2, ""), *_WRITE, ("string", "name", 6, "Name of the parent."))
    return Method(name, doc, request, ((body, "object", 1, ""),))


# Methods for subresources, by the name of the subresource; "resource/name" where only that resource has it.
SUBRESOURCES: Mapping[str, tuple[Method, ...]] = {
    "status": (UPDATE_STATUS, BATCH_UPDATE_STATUS),
    "scale": (
        Method(
            "GetScale", "Reads how many replicas are wanted and seen.", (_NAMESPACE, _NAME), ((SCALE, "object", 1, ""),)
        ),
        Method(
            "UpdateScale",
            "Sets how many replicas are wanted.",
            (_NAMESPACE, (SCALE, "object", 2, ""), *_WRITE, ("string", "name", 6, "")),
            ((SCALE, "object", 1, ""),),
        ),
    ),
    "binding": (
        Method(
            "Bind",
            "Puts the pod on a node.",
            (_NAMESPACE, (".k8s.io.api.core.v1.Binding", "object", 2, ""), *_WRITE, ("string", "name", 6, "")),
            ((STATUS, "object", 1, ""),),
        ),
        Method(
            "BatchBind",
            "Puts many pods on nodes; each fails or succeeds by itself.",
            (("repeated .k8s.io.api.core.v1.Binding", "bindings", 1, ""),),
            ((f"repeated {STATUS}", "statuses", 1, "In the order of the request."),),
        ),
    ),
    "eviction": (
        _create_sub("Evict", "Deletes the pod if its disruption budgets allow.", ".k8s.io.api.policy.v1.Eviction"),
    ),
    "token": (
        _create_sub(
            "CreateToken", "Makes a token of the service account.", ".k8s.io.api.authentication.v1.TokenRequest"
        ),
    ),
    "log": (
        Method(
            "GetLog",
            "Reads or follows the log of one container.",
            (_NAMESPACE, _NAME, (".k8s.io.api.core.v1.PodLogOptions", "options", 3, "")),
            (("bytes", "data", 1, ""),),
            server_stream=True,
        ),
    ),
    "exec": (
        Method(
            "Exec",
            "Runs a command in a container.",
            (
                ("START", "start", 1, "Only in the first message."),
                ("bytes", "stdin", 2, ""),
                (WIRE + "TerminalSize", "resize", 3, ""),
                ("bool", "close_stdin", 4, "No more input follows."),
            ),
            (
                ("bytes", "stdout", 1, ""),
                ("bytes", "stderr", 2, ""),
                (STATUS, "status", 3, "Only in the last message; the exit code is among its causes."),
            ),
            client_stream=True,
            server_stream=True,
        ),
    ),
}


def methods_of(resource: Record) -> list[Method]:
    """The calls of one resource, verbs first."""
    found = [VERBS[verb] for verb in VERBS if verb in resource["verbs"]]
    if {"create", "list"} <= set(resource["verbs"]):
        found.append(BATCH_CREATE)
    found += [batch for verb, batch in (("patch", BATCH_PATCH), ("delete", BATCH_DELETE)) if verb in resource["verbs"]]
    for name in resource.get("subresources") or {}:
        found += SUBRESOURCES.get(name, ())
    # Batches share the message that tells what became of one object.
    return [method for method in found if method is not BATCH_UPDATE_STATUS or BATCH_CREATE in found]


def snake(kind: str) -> str:
    """CamelCase to snake_case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind).lower()


def render(resource: Record, package: str, homes: Mapping[str, str]) -> tuple[str, str]:
    """Path below protos/tiphys without ending, and text, of the service file of one resource."""
    folder = group_folder(package)
    kind = resource["kind"]
    service = f"{kind}Service"
    # A schema group's Go package may be named otherwise; the object's full name comes from the tables.
    full = f".{package}.{kind}"
    methods = methods_of(resource)
    lines: list[str] = []
    for method in methods:
        lines += ["", *_messages(service, method, full)]
    calls = []
    for method in methods:
        taken = ("stream " if method.client_stream else "") + f"{service}{method.name}Request"
        given = ("stream " if method.server_stream else "") + f"{service}{method.name}Response"
        calls += [f"  // {method.doc}", f"  rpc {method.name}({taken}) returns ({given});"]
    body = [f"// Calls for {resource['resource']}.", f"service {service} {{", *calls, "}", *lines]
    wanted = sorted(
        {homes[name[1:]] for name in re.findall(r"\.(?:k8s|tiphys)(?:\.\w+)+", "\n".join(body)) if name[1:] in homes}
    )
    head = [
        f"// The typed service of {resource['resource']}. Made by hack/update-protos in the layout of wire.proto.",
        'syntax = "proto3";',
        "",
        f"package tiphys.apiserver.{folder.replace('/', '.')};",
        "",
        *(f'import "{path}";' for path in wanted),
        "",
    ]
    return f"apiserver/{folder}/{snake(kind)}_service", "\n".join([*head, *body, ""])


def _messages(service: str, method: Method, full: str) -> list[str]:
    prefix = f"{service}{method.name}"
    lines: list[str] = []
    if method.name == "Watch":
        lines += _message(
            f"{service}Event", "One change.", ((WIRE + "EventType", "type", 1, ""), (full, "object", 2, "")), full
        )
        lines.append("")
    if method.name == "BatchCreate":
        result: Fields = (
            (full, "object", 1, "Empty where it failed."),
            (STATUS, "status", 2, "Empty where it succeeded."),
        )
        lines += [*_message(f"{service}Result", "What became of one object of a batch.", result, full), ""]
    if method.name == "Exec":
        start: Fields = (_NAMESPACE, _NAME, (".k8s.io.api.core.v1.PodExecOptions", "options", 3, ""))
        lines += [*_message(f"{service}ExecStart", "What to run and where.", start, full), ""]
    special: Callable[[str], str] = lambda kind: (  # noqa: E731 - three names that only these messages have
        kind.replace("EVENT", f"{service}Event")
        .replace("RESULT", f"{service}Result")
        .replace("START", f"{service}ExecStart")
    )
    request = tuple((special(k), n, i, d) for k, n, i, d in method.request)
    response = tuple((special(k), n, i, d) for k, n, i, d in method.response)
    lines += _message(f"{prefix}Request", f"Asks {method.name} of {service}.", request, full)
    lines += ["", *_message(f"{prefix}Response", f"Answer of {method.name}.", response, full)]
    return lines


def _message(name: str, doc: str, fields: Fields, full: str) -> list[str]:
    lines = [f"// {doc}", f"message {name} {{"]
    for kind, field, number, note in fields:
        if note:
            lines.append(f"  // {note}")
        lines.append(f"  {kind.replace(OBJECT, full)} {field} = {number};")
    return [*lines, "}"]
