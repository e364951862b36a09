"""One request as its events tell it (audit.k8s.io/v1 Event)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from tiphys_apiserver.audit.bodies import Bodies, names_of, plain, without_managed_fields
from tiphys_apiserver.audit.policy import Level, Stage
from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.server.request_info import RequestInfo

# Of what a client says of itself, no more. Source: apiserver pkg/audit/request.go.
_MAX_USER_AGENT = 1024


@dataclass(frozen=True, slots=True)
class Draft:
    """An event whose bodies are still as they came; the log's thread makes JSON of it.

    request and response are what Bodies reads. shows says which of them the event may carry; the
    request is looked at even where it may not, because it knows the name of what is created.
    """

    fields: Mapping[str, Any]
    level: Level
    stage: Stage
    at: datetime
    omit_managed_fields: bool = False
    request: Any = None
    response: Any = None


def line(draft: Draft, bodies: Bodies) -> bytes:
    """The event as one line of JSON."""
    event = dict(draft.fields)
    event["stage"] = draft.stage.value
    event["stageTimestamp"] = micro_time(draft.at)
    asked = bodies.value(draft.request) if draft.request is not None else None
    if asked is not None:
        _complete_reference(event, asked)
        if draft.level >= Level.REQUEST:
            event["requestObject"] = without_managed_fields(asked) if draft.omit_managed_fields else asked
    if draft.response is not None and draft.level >= Level.REQUEST_RESPONSE:
        answered = bodies.value(draft.response)
        if answered is not None:
            event["responseObject"] = without_managed_fields(answered) if draft.omit_managed_fields else answered
    return orjson.dumps(event, default=plain, option=orjson.OPT_APPEND_NEWLINE)


def _complete_reference(event: dict[str, Any], asked: Any) -> None:
    reference = event.get("objectRef")
    if isinstance(reference, dict):
        event["objectRef"] = {**names_of(asked), **reference}


def user_fields(user: UserInfo) -> dict[str, Any]:
    """A user as events write it."""
    made: dict[str, Any] = {"username": user.name}
    if user.uid:
        made["uid"] = user.uid
    if user.groups:
        made["groups"] = list(user.groups)
    if user.extra:
        made["extra"] = {key: list(values) for key, values in user.extra.items()}
    return made


def reference_of(info: RequestInfo) -> dict[str, str]:
    """What the request is about, as far as its path says."""
    made = {
        "resource": info.resource,
        "namespace": info.namespace,
        "name": info.name,
        "apiGroup": info.api_group,
        "apiVersion": info.api_version,
        "subresource": info.subresource,
    }
    return {key: value for key, value in made.items() if value}


def uri_of(info: RequestInfo) -> str:
    """The path that a call over gRPC would have over HTTP."""
    if not info.is_resource_request:
        return info.path
    start = f"/apis/{info.api_group}/{info.api_version}" if info.api_group else f"/api/{info.api_version}"
    is_namespace = info.resource == "namespaces" and not info.api_group
    parts = [start]
    if info.namespace and not is_namespace:
        parts += ["namespaces", info.namespace]
    parts += [info.resource, info.name, info.subresource]
    return "/".join(part for part in parts if part)


def cut_user_agent(text: str) -> str:
    """The client's name for itself, no longer than events carry."""
    return text if len(text) <= _MAX_USER_AGENT else f"{text[:_MAX_USER_AGENT]}...TRUNCATED"


def micro_time(at: datetime) -> str:
    """A MicroTime."""
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond:06d}Z"
