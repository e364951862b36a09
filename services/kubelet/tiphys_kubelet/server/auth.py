"""Who speaks to the kubelet, and whether that is allowed.

A client shows a certificate of the cluster's authority, or a bearer token that the API server vouches for. The API
server itself, and others of system:masters, may do everything; of anyone else the API server is asked, as for any
other resource: the node's subresources proxy, log, stats, metrics, pods, healthz.
Source: the documented authentication and authorization of the kubelet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from aiohttp import web
from google.protobuf.message import Message

from tiphys.api.authentication.v1.authentication_pb2 import TokenReview
from tiphys.api.authorization.v1.authorization_pb2 import SubjectAccessReview
from tiphys_apimachinery.errors import APIError
from tiphys_component.clock import Clock

MessageT = TypeVar("MessageT", bound=Message)
MASTERS = "system:masters"
CACHE_S = 30.0
MAX_CACHED = 1000
REVIEW_TIMEOUT_S = 10.0
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SUBRESOURCES = {
    "stats": "stats",
    "metrics": "metrics",
    "logs": "log",
    "pods": "pods",
    "healthz": "healthz",
    "configz": "configz",
    "statusz": "statusz",
    "flagz": "flagz",
}


@dataclass(frozen=True, slots=True)
class User:
    """Who a request comes from."""

    name: str
    groups: tuple[str, ...] = ()


class Guard(Protocol):
    """Decides on requests."""

    async def admit(self, request: web.Request) -> User:
        """The user; raises HTTPUnauthorized or HTTPForbidden."""


def certificate_user(peer: Mapping[str, Any] | None) -> User | None:
    """The user of a verified client certificate: its common name, its organisations as groups."""
    if not peer:
        return None
    pairs = [pair for part in peer.get("subject", ()) for pair in part]
    name = next((value for key, value in pairs if key == "commonName"), "")
    groups = tuple(value for key, value in pairs if key == "organizationName")
    return User(name, groups) if name else None


def subresource_of(path: str) -> str:
    """Which of the node's subresources a path of the kubelet belongs to."""
    return _SUBRESOURCES.get(path.strip("/").split("/", 1)[0], "proxy")


class Reviews(Protocol):
    """What is asked of the API server."""

    async def create(self, obj: MessageT, /) -> MessageT:
        """The review with its answer. Raises APIError."""
        ...


class ApiGuard:
    """Asks the API server where the certificate alone does not decide; answers are remembered for half a minute."""

    def __init__(self, client: Reviews, clock: Clock, node_name: str, *, trusted: Sequence[str] = ()) -> None:
        self._client = client
        self._clock = clock
        self._node_name = node_name
        self._trusted = frozenset(trusted)
        self._cache: dict[tuple[object, ...], tuple[float, Any]] = {}

    async def admit(self, request: web.Request) -> User:
        """The user of the request."""
        user = await self._authenticate(request)
        if user is None:
            raise web.HTTPUnauthorized(text="Unauthorized")
        verb, subresource = _VERBS.get(request.method, "get"), subresource_of(request.path)
        if not await self.may(user, verb, subresource):
            text = f"Forbidden (user={user.name}, verb={verb}, resource=nodes, subresource={subresource})"
            raise web.HTTPForbidden(text=text)
        return user

    async def may(self, user: User, verb: str, subresource: str) -> bool:
        """Whether the user may do that to this node."""
        if MASTERS in user.groups or user.name in self._trusted:
            return True
        key = (user, verb, subresource)
        known = self._known(key)
        if known is None:
            known = await self._review_access(user, verb, subresource)
            self._remember(key, known)
        return bool(known)

    async def _authenticate(self, request: web.Request) -> User | None:
        transport = request.transport
        peer = transport.get_extra_info("peercert") if transport is not None else None
        user = certificate_user(peer)
        if user is not None:
            return user
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return None
        known = self._known((token,))
        if known is None:
            known = await self._review_token(token)
            self._remember((token,), known or User(""))
        return known if isinstance(known, User) and known.name else None

    async def _review_token(self, token: str) -> User | None:
        review = TokenReview()
        review.spec.token = token
        try:
            async with asyncio.timeout(REVIEW_TIMEOUT_S):
                answer = await self._client.create(review)
        except (APIError, TimeoutError):
            return None  # who can't be vouched for is nobody
        if not answer.status.authenticated:
            return None
        return User(answer.status.user.username, tuple(answer.status.user.groups))

    async def _review_access(self, user: User, verb: str, subresource: str) -> bool:
        review = SubjectAccessReview()
        review.spec.user = user.name
        review.spec.groups.extend(user.groups)
        attributes = review.spec.resourceAttributes
        attributes.verb, attributes.version, attributes.resource = verb, "v1", "nodes"
        attributes.subresource, attributes.name = subresource, self._node_name
        try:
            async with asyncio.timeout(REVIEW_TIMEOUT_S):
                answer = await self._client.create(review)
        except (APIError, TimeoutError):
            return False  # what nobody has allowed is not allowed
        return bool(answer.status.allowed)

    def _known(self, key: tuple[object, ...]) -> Any:
        entry = self._cache.get(key)
        return entry[1] if entry is not None and self._clock.monotonic() < entry[0] else None

    def _remember(self, key: tuple[object, ...], value: Any) -> None:
        if len(self._cache) >= MAX_CACHED:
            self._cache.clear()
        self._cache[key] = (self._clock.monotonic() + CACHE_S, value)
