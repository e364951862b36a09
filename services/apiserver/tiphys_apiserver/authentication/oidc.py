"""ID tokens of an OpenID Connect issuer: keys found by discovery and renewed when a token names another."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import jwt
import orjson

from tiphys_apimachinery.errors import Unauthorized
from tiphys_apiserver.authentication.interface import Credentials, UserInfo
from tiphys_apiserver.authentication.union import authenticated
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger

_log = get_logger(__name__)

DISCOVERY_PATH = "/.well-known/openid-configuration"
# Keys are fetched at most so often for the sake of tokens with unknown keys, which anybody can send.
_REFETCH_S = 10.0
# And anew after so long, so that a key that the issuer has taken back ends to be believed.
_KEEP_S = 3600.0
_LEEWAY_S = 10


class FetchFailed(Exception):
    """A document could not be had; the text tells why."""


class Fetcher(Protocol):
    """Who reads the issuer's documents."""

    async def get(self, url: str) -> dict[str, Any]:
        """The JSON document. Raises FetchFailed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OIDCSettings:
    """What the --oidc flags say. username_prefix "-" is none, "" the issuer where the claim is not email."""

    issuer: str
    client_id: str
    username_claim: str = "sub"
    username_prefix: str = ""
    groups_claim: str = ""
    groups_prefix: str = ""
    signing_algs: tuple[str, ...] = ("RS256",)
    required_claims: Mapping[str, str] = field(default_factory=dict)

    def prefix(self) -> str:
        """What stands before user names."""
        if self.username_prefix == "-":
            return ""
        if self.username_prefix or self.username_claim == "email":
            return self.username_prefix
        return f"{self.issuer}#"


class OIDCAuthenticator:
    """Takes ID tokens that the issuer made for our client id. Until the issuer answers, all of them are refused."""

    def __init__(self, settings: OIDCSettings, fetcher: Fetcher, clock: Clock) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._tried_at: float | None = None
        self._fetched_at: float | None = None
        # One fetch at a time: all who wait for it use what it brings.
        self._fetching = asyncio.Lock()

    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        """The token's user; None for what is no token of the issuer. Raises Unauthorized for one that does not hold."""
        token = credentials.bearer_token
        if not token or credentials.audiences or _issuer_of(token) != self._settings.issuer:
            return None
        claims = await self._verify(token)
        self._check(claims)
        return self._user(claims)

    async def _verify(self, token: str) -> Mapping[str, Any]:
        try:
            key_id = str(jwt.get_unverified_header(token).get("kid", ""))
            for key in await self._candidates(key_id):
                try:
                    claims: Mapping[str, Any] = jwt.decode(
                        token,
                        key.key,
                        algorithms=list(self._settings.signing_algs),
                        options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False},
                    )
                except (jwt.InvalidSignatureError, jwt.InvalidKeyError):
                    continue
                return claims
        except jwt.PyJWTError as err:
            raise Unauthorized(f"oidc: verify token: {err}") from err
        raise Unauthorized("oidc: verify token: failed to verify id token signature")

    async def _candidates(self, key_id: str) -> list[jwt.PyJWK]:
        now = self._clock.monotonic()
        is_old = self._fetched_at is None or now - self._fetched_at > _KEEP_S
        if is_old or (key_id and key_id not in self._keys):
            await self._fetch_keys()
        if key_id:
            return [self._keys[key_id]] if key_id in self._keys else []
        return list(self._keys.values())

    async def _fetch_keys(self) -> None:
        async with self._fetching:
            now = self._clock.monotonic()
            if self._tried_at is not None and now - self._tried_at < _REFETCH_S:
                return
            self._tried_at = now
            try:
                found = await self._fetcher.get(self._settings.issuer.rstrip("/") + DISCOVERY_PATH)
                if found.get("issuer") != self._settings.issuer:
                    raise FetchFailed(f"the issuer calls itself {found.get('issuer')!r}")
                document = await self._fetcher.get(str(found.get("jwks_uri")))
                self._keys = _read_keys(document)
                self._fetched_at = now
            except FetchFailed as err:
                # With the keys of before the tokens of before are still good.
                _log.warning("OIDC issuer's keys can't be had", issuer=self._settings.issuer, err=str(err))

    def _check(self, claims: Mapping[str, Any]) -> None:
        now = self._clock.now().timestamp()
        expires, begins = claims.get("exp"), claims.get("nbf")
        if not isinstance(expires, (int, float)) or now > expires + _LEEWAY_S:
            raise Unauthorized("oidc: verify token: token is expired")
        if isinstance(begins, (int, float)) and now < begins - _LEEWAY_S:
            raise Unauthorized("oidc: verify token: token is not valid yet")
        audience = claims.get("aud", ())
        meant_for = (audience,) if isinstance(audience, str) else tuple(audience)
        if self._settings.client_id not in meant_for:
            raise Unauthorized(f"oidc: verify token: expected audience {self._settings.client_id!r}")
        for name, value in self._settings.required_claims.items():
            if claims.get(name) != value:
                raise Unauthorized(f"oidc: required claim {name} is not present or has another value")

    def _user(self, claims: Mapping[str, Any]) -> UserInfo:
        settings = self._settings
        name = claims.get(settings.username_claim)
        if not isinstance(name, str) or not name:
            raise Unauthorized(f"oidc: parse username claims {settings.username_claim!r}: claim not present")
        if settings.username_claim == "email" and claims.get("email_verified", True) is not True:
            raise Unauthorized("oidc: email not verified")
        groups: Any = claims.get(settings.groups_claim, ()) if settings.groups_claim else ()
        groups = (groups,) if isinstance(groups, str) else groups
        if not isinstance(groups, (list, tuple)) or not all(isinstance(group, str) for group in groups):
            raise Unauthorized(f"oidc: parse groups claim {settings.groups_claim!r}: it is no text and no list")
        return authenticated(
            settings.prefix() + name, tuple(settings.groups_prefix + group for group in groups), extra=_extra(claims)
        )


def _extra(claims: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    token_id = claims.get("jti")
    return {"authentication.kubernetes.io/credential-id": (f"JTI={token_id}",)} if token_id else {}


def _read_keys(document: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
    found: dict[str, jwt.PyJWK] = {}
    for index, item in enumerate(document.get("keys") or ()):
        if item.get("use", "sig") != "sig":
            continue
        try:
            found[str(item.get("kid") or f"#{index}")] = jwt.PyJWK.from_dict(item)
        except jwt.PyJWTError as err:
            _log.debug("OIDC key is left out", kid=str(item.get("kid")), err=str(err))
    return found


def _issuer_of(token: str) -> str:
    parts = token.split(".")
    if len(parts) != 3:
        return ""
    try:
        body = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error):
        return ""
    return str(body.get("iss", "")) if isinstance(body, dict) else ""
