"""Tokens that a service outside the cluster knows: asked by TokenReview, answers kept for a while."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol

from tiphys_apimachinery.errors import Unauthorized
from tiphys_apiserver.authentication.interface import Credentials, UserInfo
from tiphys_apiserver.authentication.review_client import ReviewFailed
from tiphys_apiserver.authentication.union import authenticated
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger

_log = get_logger(__name__)
_CACHE_SIZE = 4096


class Reviewer(Protocol):
    """Who answers reviews."""

    async def post(self, review: dict[str, Any]) -> dict[str, Any]:
        """The review as answered. Raises ReviewFailed."""
        ...


class WebhookTokenAuthenticator:
    """Asks a webhook whose a token is. What it said, also no, is believed for cache_ttl_s; failures are not kept."""

    def __init__(self, reviewer: Reviewer, clock: Clock, *, version: str, cache_ttl_s: float) -> None:
        self._reviewer = reviewer
        self._clock = clock
        self._version = version
        self._ttl_s = cache_ttl_s
        self._known: OrderedDict[tuple[bytes, tuple[str, ...]], tuple[float, UserInfo | None]] = OrderedDict()

    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        """The token's user; None where the webhook does not know it. Raises Unauthorized where it gives no answer."""
        token = credentials.bearer_token
        if not token:
            return None
        key = (hashlib.sha256(token.encode()).digest(), credentials.audiences)
        known = self._known.get(key)
        if known is not None and known[0] > self._clock.monotonic():
            return known[1]
        user = await self._ask(token, credentials.audiences)
        self._known[key] = (self._clock.monotonic() + self._ttl_s, user)
        self._known.move_to_end(key)
        if len(self._known) > _CACHE_SIZE:
            self._known.popitem(last=False)
        return user

    async def _ask(self, token: str, audiences: tuple[str, ...]) -> UserInfo | None:
        spec: dict[str, Any] = {"token": token}
        if audiences:
            spec["audiences"] = list(audiences)
        review = {"apiVersion": f"authentication.k8s.io/{self._version}", "kind": "TokenReview", "spec": spec}
        try:
            answer = await self._reviewer.post(review)
        except ReviewFailed as err:
            _log.warning("token webhook does not answer", err=str(err))
            raise Unauthorized("the token webhook does not answer") from err
        status = answer["status"]
        if not status.get("authenticated"):
            return None
        # A webhook that does not speak of audiences knows nothing but the server's own.
        if audiences and not set(audiences) & set(status.get("audiences") or ()):
            return None
        return _user(status.get("user"))


def _user(document: Any) -> UserInfo | None:
    if not isinstance(document, Mapping) or not document.get("username"):
        return None
    extra = {str(key): tuple(map(str, values)) for key, values in (document.get("extra") or {}).items()}
    groups = tuple(map(str, document.get("groups") or ()))
    return authenticated(str(document["username"]), groups, uid=str(document.get("uid") or ""), extra=extra)
