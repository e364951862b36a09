"""Service account tokens: what they say, how they are signed, and whether one still holds."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jwt
import orjson
from google.protobuf.message import Message

from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys.api.core.v1.service_account_pb2 import ServiceAccount
from tiphys_apimachinery import meta
from tiphys_apimachinery.errors import NotFound, Unauthorized
from tiphys_apiserver.authentication.interface import Credentials, UserInfo
from tiphys_apiserver.authentication.signing_keys import SigningKey, VerifyingKey
from tiphys_apiserver.authentication.union import authenticated
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_component.clock import Clock

_PRIVATE_CLAIMS = "kubernetes.io"
# A clock of another server may be this far behind the one that signed.
_LEEWAY_S = 10
# How long a bound object may stay after its deletion was asked for until its tokens end.
# Source: pkg/serviceaccount/claims.go.
_GRACE_AFTER_DELETION_S = 60
_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_NODE_NAME = "authentication.kubernetes.io/node-name"
_NODE_UID = "authentication.kubernetes.io/node-uid"
_CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
# Verified signatures remembered by the whole token. The objects behind are looked up each time.
_CACHE_SIZE = 4096


@dataclass(frozen=True, slots=True)
class BoundReference:
    """One object that a token names, by name and uid."""

    name: str
    uid: str

    def to_claim(self) -> dict[str, str]:
        """As it stands in the token."""
        return {"name": self.name, "uid": self.uid}


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """What a token is to say. A pod's token names its node as well; at most one of pod, secret is set."""

    namespace: str
    service_account: BoundReference
    audiences: tuple[str, ...]
    issued_at: datetime
    lifetime_s: int
    token_id: str
    pod: BoundReference | None = None
    node: BoundReference | None = None
    secret: BoundReference | None = None


class TokenSigner:
    """Makes tokens in the name of one issuer."""

    def __init__(self, issuer: str, key: SigningKey) -> None:
        self._issuer = issuer
        self._key = key

    def sign(self, claims: TokenClaims) -> str:
        """The token in its compact form; RS256 costs about 1 ms, ES256 0.1 ms."""
        issued = int(claims.issued_at.timestamp())
        private: dict[str, Any] = {
            "namespace": claims.namespace,
            "serviceaccount": claims.service_account.to_claim(),
        }
        for kind in ("pod", "node", "secret"):
            reference: BoundReference | None = getattr(claims, kind)
            if reference is not None:
                private[kind] = reference.to_claim()
        body = {
            "aud": list(claims.audiences),
            "exp": issued + claims.lifetime_s,
            "iat": issued,
            "iss": self._issuer,
            "jti": claims.token_id,
            _PRIVATE_CLAIMS: private,
            "nbf": issued,
            "sub": f"system:serviceaccount:{claims.namespace}:{claims.service_account.name}",
        }
        return jwt.encode(
            body, self._key.key, algorithm=self._key.public.algorithm, headers={"kid": self._key.public.key_id}
        )


class ServiceAccountAuthenticator:
    """Takes tokens of our issuers, as long as the account and what the token is bound to are there.

    The first issuer signs; the others are accepted, so that an issuer can be changed.
    """

    def __init__(
        self,
        issuers: Sequence[str],
        keys: Mapping[str, VerifyingKey],
        *,
        api_audiences: Sequence[str],
        objects: ObjectAccess,
        clock: Clock,
    ) -> None:
        self._issuers = frozenset(issuers)
        self._keys = dict(keys)
        self._api_audiences = tuple(api_audiences)
        self._objects = objects
        self._clock = clock
        # Claims of tokens whose signature is right; times and objects are judged at each use.
        self._verified: dict[str, Mapping[str, Any]] = {}

    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        """The token's account; None for tokens of other issuers. Raises Unauthorized for one that does not hold."""
        token = credentials.bearer_token
        if not token or not self._is_ours(token):
            return None
        claims = self._verified.get(token)
        if claims is None:
            claims = self._verify_signature(token)
            if len(self._verified) >= _CACHE_SIZE:
                self._verified.clear()
            self._verified[token] = claims
        self._check_times(claims)
        wanted = credentials.audiences or self._api_audiences
        if not set(wanted) & set(_audiences(claims)):
            raise Unauthorized("token audiences do not include any of the audiences asked for")
        return await self._user_of(claims)

    def matching_audiences(self, token: str, wanted: Sequence[str]) -> tuple[str, ...]:
        """Those of wanted (or of the server's own) that a verified token is meant for."""
        claims = self._verified.get(token, {})
        meant_for = _audiences(claims)
        return tuple(audience for audience in wanted or self._api_audiences if audience in meant_for)

    def _is_ours(self, token: str) -> bool:
        parts = token.split(".")
        if len(parts) != 3:
            return False
        try:
            body = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        except (ValueError, binascii.Error):
            return False
        return isinstance(body, dict) and body.get("iss") in self._issuers

    def _verify_signature(self, token: str) -> Mapping[str, Any]:
        try:
            key_id = jwt.get_unverified_header(token).get("kid", "")
            # A key without that name is no reason to refuse: older tokens may carry no name.
            named = self._keys.get(key_id)
            candidates = [named] if named is not None else list(self._keys.values())
            for key in candidates:
                try:
                    claims: Mapping[str, Any] = jwt.decode(
                        token,
                        key.key,
                        algorithms=[key.algorithm],
                        # Times are judged by our clock, audiences by what the caller asks for.
                        options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False},
                    )
                except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                    continue
                return claims
        except jwt.PyJWTError as err:
            raise Unauthorized("token is malformed") from err
        raise Unauthorized("token signature is not of a known key")

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now = self._clock.now().timestamp()
        expires, begins = claims.get("exp"), claims.get("nbf")
        if not isinstance(expires, (int, float)) or now > expires + _LEEWAY_S:
            raise Unauthorized("token has expired")
        if isinstance(begins, (int, float)) and now < begins - _LEEWAY_S:
            raise Unauthorized("token is not valid yet")

    async def _user_of(self, claims: Mapping[str, Any]) -> UserInfo:
        private = claims.get(_PRIVATE_CLAIMS)
        if not isinstance(private, dict):
            raise Unauthorized("token has no kubernetes.io claims")
        namespace = str(private.get("namespace", ""))
        account = _reference(private, "serviceaccount")
        if account is None or claims.get("sub") != f"system:serviceaccount:{namespace}:{account.name}":
            raise Unauthorized("token claims contradict each other")
        await self._require(ServiceAccount, "service account", account, namespace)
        extra: dict[str, tuple[str, ...]] = {}
        if claims.get("jti"):
            extra[_CREDENTIAL_ID] = (f"JTI={claims['jti']}",)
        if (secret := _reference(private, "secret")) is not None:
            await self._require(Secret, "secret", secret, namespace)
        node = _reference(private, "node")
        if (pod := _reference(private, "pod")) is not None:
            await self._require(Pod, "pod", pod, namespace)
            extra[_POD_NAME], extra[_POD_UID] = (pod.name,), (pod.uid,)
        elif node is not None:
            await self._require(Node, "node", node, "")
        if node is not None:
            extra[_NODE_NAME] = (node.name,)
            if node.uid:
                extra[_NODE_UID] = (node.uid,)
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
        return authenticated(str(claims["sub"]), groups, uid=account.uid, extra=extra)

    async def _require(self, cls: type[Message], kind: str, reference: BoundReference, namespace: str) -> None:
        try:
            # What the cache does not have is looked up in the store: it may be younger than the cache.
            obj: Any = await self._objects.get(cls, reference.name, namespace)
        except NotFound:
            raise Unauthorized(f"{kind} {namespace}/{reference.name} has been deleted") from None
        if obj.metadata.uid != reference.uid:
            raise Unauthorized(f"{kind} {namespace}/{reference.name} has been replaced by another of its name")
        deleted = meta.to_datetime(obj.metadata.deletionTimestamp) if meta.is_being_deleted(obj) else None
        if deleted is not None and (self._clock.now() - deleted).total_seconds() > _GRACE_AFTER_DELETION_S:
            raise Unauthorized(f"{kind} {namespace}/{reference.name} has been deleted")


def _audiences(claims: Mapping[str, Any]) -> tuple[str, ...]:
    value = claims.get("aud", ())
    return (value,) if isinstance(value, str) else tuple(value)


def _reference(private: Mapping[str, Any], kind: str) -> BoundReference | None:
    claim = private.get(kind)
    if not isinstance(claim, dict):
        return None
    return BoundReference(str(claim.get("name", "")), str(claim.get("uid", "")))
