"""ConversionReview apiextensions.k8s.io/v1: the question as JSON, and the answer read and checked. Pure.

Source: apiextensions pkg/apiserver/conversion/webhook_converter.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

API_VERSION: Final = "apiextensions.k8s.io/v1"
KIND: Final = "ConversionReview"
# What a webhook may change of metadata; of the rest the original's is kept.
_MAY_CHANGE: Final = ("labels", "annotations")

JSON = dict[str, Any]


class BadConversion(Exception):
    """The webhook's answer can't be used; the text tells why."""


def question(objects: Sequence[JSON], desired: str, uid: str) -> bytes:
    """The review to be sent: objects that shall become the desired apiVersion."""
    request = {"uid": uid, "desiredAPIVersion": desired, "objects": objects}
    return orjson.dumps({"kind": KIND, "apiVersion": API_VERSION, "request": request})


def converted(body: bytes, objects: Sequence[JSON], desired: str, uid: str) -> list[JSON]:
    """The objects of the answer, in the order of those asked about, with their own metadata.

    Raises BadConversion for everything that is no answer to this very question.
    """
    answered = _response(body, uid).get("convertedObjects")
    found = answered if isinstance(answered, list) else []
    if len(found) != len(objects):
        raise BadConversion(f"returned {len(found)} objects, expected {len(objects)}")
    made = []
    for index, (original, obj) in enumerate(zip(objects, found, strict=True)):
        try:
            made.append(_checked(original, obj, desired))
        except BadConversion as err:
            raise BadConversion(f"returned invalid converted object at index {index}: {err}") from err
    return made


def _response(body: bytes, uid: str) -> Mapping[str, Any]:
    try:
        review = orjson.loads(body)
    except orjson.JSONDecodeError as err:
        raise BadConversion(f"the answer is not JSON: {err}") from err
    if not isinstance(review, dict) or (review.get("apiVersion"), review.get("kind")) != (API_VERSION, KIND):
        given = (review.get("apiVersion"), review.get("kind")) if isinstance(review, dict) else (None, None)
        raise BadConversion(f"expected webhook response of {API_VERSION}, Kind={KIND}, got {given[0]}, Kind={given[1]}")
    response = review.get("response")
    if not isinstance(response, dict):
        raise BadConversion("no response provided")
    if response.get("uid") != uid:
        raise BadConversion(f"expected response.uid={uid!r}, got {response.get('uid')!r}")
    told = response.get("result")
    result: Mapping[str, Any] = told if isinstance(told, dict) else {}
    if result.get("status") != "Success":
        raise BadConversion(
            str(result.get("message") or f"response.result.status was {result.get('status')!r}, not 'Success'")
        )
    return response


def _checked(original: JSON, obj: Any, desired: str) -> JSON:
    """The converted object with the original's metadata; labels and annotations are the webhook's."""
    if not isinstance(obj, dict):
        raise BadConversion("is no object")
    if obj.get("apiVersion") != desired:
        raise BadConversion(f"invalid apiVersion {obj.get('apiVersion')!r}, expected {desired!r}")
    if obj.get("kind") != original["kind"]:
        raise BadConversion(f"must have the same kind: {obj.get('kind')!r} != {original['kind']!r}")
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        raise BadConversion("missing metadata in converted object")
    kept = dict(original["metadata"])
    for name in ("name", "namespace", "uid"):
        if (metadata.get(name) or "") != (kept.get(name) or ""):
            raise BadConversion(f"must have the same {name}: {metadata.get(name)!r} != {kept.get(name)!r}")
    for name in _MAY_CHANGE:
        given = metadata.get(name)
        if given is None:
            kept.pop(name, None)
        elif isinstance(given, dict) and all(isinstance(value, str) for value in given.values()):
            kept[name] = given
        else:
            raise BadConversion(f"invalid metadata.{name}: must be strings by name")
    return {**obj, "metadata": kept}
