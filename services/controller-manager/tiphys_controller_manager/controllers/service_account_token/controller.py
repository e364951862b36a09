"""Fills Secrets of the type kubernetes.io/service-account-token, which users make for tokens that do not end.

Nothing makes such Secrets by itself any more. The API server signs, as for every other token; bound to the Secret, the
token holds until that is deleted, and the Secret is deleted with its account.
Source: kubernetes pkg/controller/serviceaccount/tokens_controller.go.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Any, Final

import orjson

from tiphys.api.authentication.v1.authentication_pb2 import TokenRequest
from tiphys.api.core.v1 import secret_pb2, service_account_pb2
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.meta import is_being_deleted, join_key, namespaced_name
from tiphys_client.controller import RequeueAfter
from tiphys_component.log import get_logger
from tiphys_controller_manager.frame import Context, Watch, own_key
from tiphys_controller_manager.pods import NAMESPACE_INDEX

SECRET_TYPE: Final = "kubernetes.io/service-account-token"
ACCOUNT: Final = "kubernetes.io/service-account.name"
ACCOUNT_UID: Final = "kubernetes.io/service-account.uid"
_SELECTOR: Final = f"type={SECRET_TYPE}"
# The longest life that may be asked for, 136 years. A server may grant less: then the token is renewed in time.
_LIFETIME_S: Final = 1 << 32
_RENEW_BEFORE_S: Final = 3600.0
_LOOK_AGAIN_S: Final = 86400.0
_LAG_S: Final = 1.0

Secret = secret_pb2.Secret
ServiceAccount = service_account_pb2.ServiceAccount


class ServiceAccountTokenController:
    """Keys are those of token Secrets."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._clock = context.clock
        self._authority = context.authority.encode()
        self._secrets = context.informers.of(Secret, field_selector=_SELECTOR)
        self._accounts = context.informers.of(ServiceAccount)
        self._writes = context.expectations(Secret, field_selector=_SELECTOR)
        self._log = get_logger("serviceaccount-token-controller")

    def watches(self) -> Iterable[Watch]:
        """Token Secrets, and no others; and accounts that come and go."""
        return (
            Watch(Secret, own_key, field_selector=_SELECTOR),
            Watch(ServiceAccount, self._account_keys),
        )

    def first_keys(self) -> Iterable[str]:
        """None: every Secret is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Fill one Secret, or delete it where its account is gone. Raises errors of the API."""
        secret = self._secrets.get(key)
        if secret is None or is_being_deleted(secret):
            self._writes.forget(key)
            return None
        if not self._writes.are_met(key):
            return RequeueAfter(_LAG_S)
        account = await self._account_of(secret)
        if account is None:
            await self._delete(secret)
            return None
        left_s = _left_s(secret.data.get("token", b""), self._clock.now().timestamp())
        wanted = {"ca.crt": self._authority, "namespace": secret.metadata.namespace.encode()}
        is_right = left_s > _RENEW_BEFORE_S and all(secret.data.get(name) == value for name, value in wanted.items())
        if is_right and secret.metadata.annotations.get(ACCOUNT_UID) == account.metadata.uid:
            return RequeueAfter(min(left_s - _RENEW_BEFORE_S, _LOOK_AGAIN_S))
        if left_s <= _RENEW_BEFORE_S:
            wanted["token"] = await self._token(secret, account)
        for name, value in wanted.items():
            secret.data[name] = value
        secret.metadata.annotations[ACCOUNT_UID] = account.metadata.uid
        self._writes.wrote(key, await self._client.update(secret))
        self._log.info("token written", secret=key, account=account.metadata.name)
        return None

    async def _account_of(self, secret: Secret) -> ServiceAccount | None:
        """The account that the Secret is for, by the server's own word where our view has none; None if it is gone."""
        metadata = secret.metadata
        name, uid = metadata.annotations.get(ACCOUNT, ""), metadata.annotations.get(ACCOUNT_UID, "")
        known = self._accounts.get(join_key(metadata.namespace, name))
        if known is None or (uid and known.metadata.uid != uid):
            try:
                known = await self._client.get(ServiceAccount, name, metadata.namespace)
            except NotFound:
                return None
        return None if uid and known.metadata.uid != uid else known

    async def _token(self, secret: Secret, account: ServiceAccount) -> bytes:
        request = TokenRequest()
        request.spec.expirationSeconds = _LIFETIME_S
        bound = request.spec.boundObjectRef
        bound.kind, bound.apiVersion = "Secret", "v1"
        bound.name, bound.uID = secret.metadata.name, secret.metadata.uid
        metadata = account.metadata
        answer = await self._client.post(ServiceAccount, "CreateToken", metadata.name, metadata.namespace, body=request)
        return answer.status.token.encode()

    async def _delete(self, secret: Secret) -> None:
        metadata = secret.metadata
        try:
            await self._client.delete(Secret, metadata.name, metadata.namespace, preconditions_uid=metadata.uid)
        except NotFound:
            return
        self._log.info("token of an account that is gone deleted", secret=namespaced_name(secret))

    def _account_keys(self, old: Any, new: Any) -> Iterable[str]:
        if old is not None and new is not None and old.metadata.uid == new.metadata.uid:
            return ()
        metadata = (new if new is not None else old).metadata
        return [
            namespaced_name(secret)
            for secret in self._secrets.by_index(NAMESPACE_INDEX, metadata.namespace)
            if secret.metadata.annotations.get(ACCOUNT) == metadata.name
        ]


def _left_s(token: bytes, now: float) -> float:
    """How long a token holds; 0 for what is no token."""
    try:
        body = token.split(b".")[1]
        claims = orjson.loads(base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4)))
        return float(claims["exp"]) - now
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return 0.0
