"""What the CEL of policies and webhooks' conditions sees of a write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from tiphys.api.core.v1.namespace_pb2 import Namespace
from tiphys_apimachinery.codec import json_codec
from tiphys_apiserver.admission.interface import AdmissionAttributes
from tiphys_apiserver.admission.webhooks.review import question
from tiphys_apiserver.cel.authorizer import AuthorizerValue, request_resource
from tiphys_apiserver.registry.objects import ObjectAccess

CONDITION_VARIABLES: Final = frozenset({"object", "oldObject", "request", "authorizer", "authorizer.requestResource"})
POLICY_VARIABLES: Final = CONDITION_VARIABLES | {"params", "namespaceObject", "variables"}


def variables_of(attributes: AdmissionAttributes) -> dict[str, Any]:
    """object, oldObject and request; the request as a webhook would be sent it, without the objects."""
    request = orjson.loads(question(attributes, ""))["request"]
    new, old = request.pop("object"), request.pop("oldObject")
    by = AuthorizerValue(attributes.user, {})
    return {
        "object": new,
        "oldObject": old,
        "request": request,
        "authorizer": by,
        "authorizer.requestResource": request_resource(by, request),
    }


def namespace_labels(objects: ObjectAccess, attributes: AdmissionAttributes) -> Mapping[str, str] | None:
    """Labels of the namespace that the object is in, or that it is; None for what is in none."""
    if attributes.resource.plural == "namespaces" and not attributes.resource.group:
        seen: Any = attributes.object if attributes.object is not None else attributes.old_object
        return dict(seen.metadata.labels)
    if not attributes.resource.namespaced:
        return None
    found = objects.get_nowait(Namespace, attributes.namespace)
    return dict(found.metadata.labels) if found is not None else {}


def namespace_object(objects: ObjectAccess, attributes: AdmissionAttributes) -> Any:
    """The namespace as policies see it; None for what is in none."""
    if not attributes.resource.namespaced:
        return None
    found = objects.get_nowait(Namespace, attributes.namespace)
    return None if found is None else json_codec.to_json(found)
