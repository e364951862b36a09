"""Rights that a service outside the cluster knows: asked by SubjectAccessReview, answers kept for a while."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol

from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.authentication.review_client import ReviewFailed
from tiphys_apiserver.authorization.interface import Attributes, Decision, Rules, Verdict
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger

_log = get_logger(__name__)
_CACHE_SIZE = 8192


class Reviewer(Protocol):
    """Who answers reviews."""

    async def post(self, review: dict[str, Any]) -> dict[str, Any]:
        """The review as answered. Raises ReviewFailed."""
        ...


class WebhookAuthorizer:
    """Asks a webhook. A yes is believed for allowed_ttl_s, anything else that it says for refused_ttl_s.

    Where it gives no answer there is no opinion, and the next authorizer is asked.
    """

    def __init__(
        self, reviewer: Reviewer, clock: Clock, *, version: str, allowed_ttl_s: float, refused_ttl_s: float
    ) -> None:
        self._reviewer = reviewer
        self._clock = clock
        self._version = version
        self._allowed_ttl_s = allowed_ttl_s
        self._refused_ttl_s = refused_ttl_s
        self._known: OrderedDict[Any, tuple[float, Decision]] = OrderedDict()

    async def authorize(self, attributes: Attributes) -> Decision:
        """The webhook's decision."""
        key = _key(attributes)
        known = self._known.get(key)
        if known is not None and known[0] > self._clock.monotonic():
            return known[1]
        try:
            answer = await self._reviewer.post(_review(attributes, self._version))
        except ReviewFailed as err:
            _log.warning("authorization webhook does not answer", err=str(err))
            return Decision(Verdict.NO_OPINION, "the authorization webhook does not answer")
        decision = _decision(answer["status"])
        ttl_s = self._allowed_ttl_s if decision.allowed else self._refused_ttl_s
        self._known[key] = (self._clock.monotonic() + ttl_s, decision)
        self._known.move_to_end(key)
        if len(self._known) > _CACHE_SIZE:
            self._known.popitem(last=False)
        return decision

    async def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        """Nothing: a webhook judges single questions."""
        return Rules(incomplete=True, evaluation_error="webhook authorizer does not support user rule resolution")


def _key(attributes: Attributes) -> Any:
    user = attributes.user
    extra = tuple(sorted((key, tuple(values)) for key, values in user.extra.items()))
    place = (attributes.api_group, attributes.api_version, attributes.resource, attributes.subresource)
    return (
        (user.name, user.uid, user.groups, extra),
        (
            attributes.verb,
            attributes.is_resource_request,
            attributes.path if not attributes.is_resource_request else "",
        ),
        place,
        (attributes.namespace, attributes.name, attributes.field_selector, attributes.label_selector),
    )


def _review(attributes: Attributes, version: str) -> dict[str, Any]:
    user = attributes.user
    spec: dict[str, Any] = {"user": user.name, "groups" if version == "v1" else "group": list(user.groups)}
    if user.uid:
        spec["uid"] = user.uid
    if user.extra:
        spec["extra"] = {key: list(values) for key, values in user.extra.items()}
    if attributes.is_resource_request:
        about: dict[str, Any] = {
            "verb": attributes.verb,
            "group": attributes.api_group,
            "version": attributes.api_version,
            "resource": attributes.resource,
            "subresource": attributes.subresource,
            "namespace": attributes.namespace,
            "name": attributes.name,
        }
        if version == "v1" and attributes.field_selector:
            about["fieldSelector"] = {"rawSelector": attributes.field_selector}
        if version == "v1" and attributes.label_selector:
            about["labelSelector"] = {"rawSelector": attributes.label_selector}
        spec["resourceAttributes"] = {key: value for key, value in about.items() if value}
    else:
        spec["nonResourceAttributes"] = {"path": attributes.path, "verb": attributes.verb}
    return {"apiVersion": f"authorization.k8s.io/{version}", "kind": "SubjectAccessReview", "spec": spec}


def _decision(status: dict[str, Any]) -> Decision:
    reason = str(status.get("reason") or "")
    if status.get("denied"):
        # One that says both is not to be believed in the dangerous half.
        return Decision(Verdict.DENY, reason)
    return Decision(Verdict.ALLOW if status.get("allowed") else Verdict.NO_OPINION, reason)
