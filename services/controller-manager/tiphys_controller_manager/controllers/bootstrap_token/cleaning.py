"""Deletes bootstrap tokens that have expired."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from tiphys.api.core.v1 import secret_pb2
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.meta import join_key
from tiphys_client.controller import RequeueAfter
from tiphys_component.log import get_logger
from tiphys_controller_manager.frame import Context, Watch

NAMESPACE: Final = "kube-system"
SECRET_TYPE: Final = "bootstrap.kubernetes.io/token"


class TokenCleaner:
    """Keys are names of Secrets of kube-system."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._clock = context.clock
        self._secrets = context.informers.of(secret_pb2.Secret)
        self._log = get_logger("token-cleaner-controller")

    def watches(self) -> Iterable[Watch]:
        """The Secrets that are tokens."""
        return (Watch(secret_pb2.Secret, _tokens),)

    def first_keys(self) -> Iterable[str]:
        """None: every token is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Delete one token when it has expired, or come back then. Raises errors of the API."""
        secret = self._secrets.get(join_key(NAMESPACE, key))
        if secret is None or secret.type != SECRET_TYPE:
            return None
        ends = expiration(secret)
        if ends is None:
            return None
        left_s = (ends - self._clock.now()).total_seconds()
        if left_s > 0:
            return RequeueAfter(left_s)
        try:
            await self._client.delete(secret_pb2.Secret, key, NAMESPACE)
        except NotFound:
            return None
        self._log.info("expired bootstrap token deleted", secret=f"{NAMESPACE}/{key}")
        return None


def expiration(secret: Any) -> datetime | None:
    """When a token ends; None for one that never does. A text that is no time has ended, as no server takes it."""
    text = secret.data.get("expiration", b"").decode(errors="replace")
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return found if found.tzinfo is not None else datetime.min.replace(tzinfo=UTC)


def _tokens(old: Any, new: Any) -> Iterable[str]:
    obj = new if new is not None else old
    return (obj.metadata.name,) if obj.metadata.namespace == NAMESPACE and obj.type == SECRET_TYPE else ()
