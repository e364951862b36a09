"""Bootstrap tokens: Secrets of kube-system by which new nodes ask for their first certificate."""

from __future__ import annotations

import hmac
import re
from datetime import datetime

from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys_apimachinery import meta
from tiphys_apimachinery.errors import NotFound, Unauthorized
from tiphys_apiserver.authentication.interface import Credentials, UserInfo
from tiphys_apiserver.authentication.union import authenticated
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_component.clock import Clock

NAMESPACE = "kube-system"
SECRET_TYPE = "bootstrap.kubernetes.io/token"
NAME_PREFIX = "bootstrap-token-"
GROUP = "system:bootstrappers"
# Source: cluster-bootstrap token/api/types.go.
_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")


class BootstrapTokenAuthenticator:
    """Takes tokens ID.SECRET whose Secret bootstrap-token-ID allows authentication and has not expired."""

    def __init__(self, objects: ObjectAccess, clock: Clock) -> None:
        self._objects = objects
        self._clock = clock

    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        """The user system:bootstrap:ID; None for tokens of another form or unknown ones, which others may know.

        Raises Unauthorized for a token of a Secret that does not hold.
        """
        match = _TOKEN.fullmatch(credentials.bearer_token)
        if match is None or credentials.audiences:
            return None
        token_id, token_secret = match.groups()
        try:
            secret = await self._objects.get(Secret, f"{NAME_PREFIX}{token_id}", NAMESPACE)
        except NotFound:
            return None
        data = {key: value.decode(errors="replace") for key, value in secret.data.items()}
        if meta.is_being_deleted(secret) or secret.type != SECRET_TYPE:
            raise Unauthorized("the bootstrap token is deleted or of another type")
        if data.get("token-id") != token_id:
            raise Unauthorized("the bootstrap token's Secret is of another id")
        if not hmac.compare_digest(data.get("token-secret", "").encode(), token_secret.encode()):
            raise Unauthorized("the bootstrap token's secret is wrong")
        if self._is_expired(data.get("expiration", "")):
            raise Unauthorized("the bootstrap token has expired")
        if data.get("usage-bootstrap-authentication") != "true":
            raise Unauthorized("the bootstrap token is not for authentication")
        return authenticated(f"system:bootstrap:{token_id}", _groups(data.get("auth-extra-groups", "")))

    def _is_expired(self, text: str) -> bool:
        """Whether the time has come; a text that is no time has expired, as nobody can say when it would."""
        if not text:
            return False
        try:
            expires = datetime.fromisoformat(text)
        except ValueError:
            return True
        return expires.tzinfo is None or expires <= self._clock.now()


def _groups(text: str) -> tuple[str, ...]:
    """The groups of a token. Raises Unauthorized for one that is not of bootstrappers."""
    extra = sorted({part.strip() for part in text.split(",") if part.strip()})
    for group in extra:
        if _GROUP.fullmatch(group) is None:
            raise Unauthorized(f"the bootstrap token has a group that it may not have: {group!r}")
    return (GROUP, *extra)
