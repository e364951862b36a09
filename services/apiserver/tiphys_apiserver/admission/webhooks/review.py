"""AdmissionReview admission.k8s.io/v1: the question as JSON, and the answer read and checked. Pure."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

import orjson

from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.scheme import load_default
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation

API_VERSION, KIND = "admission.k8s.io/v1", "AdmissionReview"


class BadAnswer(Exception):
    """The webhook's answer is none; the text tells why."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a webhook answered. patch is a list of JSON patch operations; code, reason and message tell a refusal."""

    allowed: bool
    patch: list[Any] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    code: int = 0
    reason: str = ""
    message: str = ""


def question(attributes: AdmissionAttributes, uid: str) -> bytes:
    """The review to be sent."""
    info, user = attributes.resource, attributes.user
    resource = {"group": info.group, "version": info.version, "resource": info.plural}
    kind = _kind(attributes)
    request: dict[str, Any] = {
        "uid": uid,
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
    }
    if attributes.subresource:
        request |= {"subResource": attributes.subresource, "requestSubResource": attributes.subresource}
    if attributes.name:
        request["name"] = attributes.name
    if attributes.namespace:
        request["namespace"] = attributes.namespace
    info_of_user: dict[str, Any] = {"username": user.name}
    if user.uid:
        info_of_user["uid"] = user.uid
    if user.groups:
        info_of_user["groups"] = list(user.groups)
    if user.extra:
        info_of_user["extra"] = {name: list(values) for name, values in user.extra.items()}
    request |= {
        "operation": attributes.operation.value,
        "userInfo": info_of_user,
        "object": _json(attributes.object),
        "oldObject": _json(attributes.old_object),
        "dryRun": attributes.dry_run,
        "options": _options(attributes),
    }
    return orjson.dumps({"kind": KIND, "apiVersion": API_VERSION, "request": request})


def _kind(attributes: AdmissionAttributes) -> dict[str, str]:
    info = attributes.resource
    seen = attributes.object if attributes.object is not None else attributes.old_object
    known = load_default().by_message(type(seen)) if seen is not None else None
    if known is not None and known.kind != info.kind:
        return {"group": known.group, "version": known.version, "kind": known.kind}
    if known is None and seen is not None and attributes.subresource:
        return {"group": info.group, "version": info.version, "kind": seen.DESCRIPTOR.name}
    return {"group": info.group, "version": info.version, "kind": info.kind}


def _json(obj: Any) -> Any:
    return None if obj is None else json_codec.to_json(obj)


def _options(attributes: AdmissionAttributes) -> dict[str, Any]:
    names = {Operation.CREATE: "CreateOptions", Operation.UPDATE: "UpdateOptions", Operation.DELETE: "DeleteOptions"}
    found: dict[str, Any] = {"kind": names.get(attributes.operation, "CreateOptions"), "apiVersion": "meta.k8s.io/v1"}
    if attributes.options is not None:
        found |= json_codec.to_json(attributes.options, with_type_meta=False)
    return found


def verdict(body: bytes, uid: str, *, may_patch: bool) -> Verdict:
    """What the answer says. Raises BadAnswer for everything that is no answer to this very question."""
    try:
        review = orjson.loads(body)
    except orjson.JSONDecodeError as err:
        raise BadAnswer(f"the answer is not JSON: {err}") from err
    if not isinstance(review, dict) or (review.get("apiVersion"), review.get("kind")) != (API_VERSION, KIND):
        raise BadAnswer(f"expected webhook response of {API_VERSION}, Kind={KIND}")
    response = review.get("response")
    if not isinstance(response, dict):
        raise BadAnswer("webhook response was absent")
    if response.get("uid") != uid:
        raise BadAnswer(f"expected response.uid={uid!r}, got {response.get('uid')!r}")
    told = response.get("status")
    status: dict[str, Any] = told if isinstance(told, dict) else {}
    warnings = response.get("warnings")
    return Verdict(
        allowed=response.get("allowed") is True,
        patch=_patch(response, may_patch=may_patch),
        warnings=tuple(str(text) for text in warnings) if isinstance(warnings, list) else (),
        code=status.get("code", 0) if isinstance(status.get("code", 0), int) else 0,
        reason=str(status.get("reason") or ""),
        message=str(status.get("message") or ""),
    )


def _patch(response: dict[str, Any], *, may_patch: bool) -> list[Any]:
    text = response.get("patch")
    if not text:
        if response.get("patchType"):
            raise BadAnswer("webhook returned response.patchType but not response.patch")
        return []
    if not may_patch:
        raise BadAnswer("a validating webhook may not return a patch")
    if response.get("patchType") != "JSONPatch":
        raise BadAnswer(f"invalid response.patchType: {response.get('patchType')!r}, only JSONPatch is known")
    try:
        patch = orjson.loads(base64.b64decode(str(text), validate=True))
    except (binascii.Error, ValueError) as err:
        raise BadAnswer(f"response.patch is no JSON in base64: {err}") from err
    if not isinstance(patch, list):
        raise BadAnswer("response.patch is no list of operations")
    return patch
