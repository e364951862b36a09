"""Deletes signing requests that are answered, failed, forgotten or out of date."""

from __future__ import annotations

from collections.abc import Iterable

from tiphys.api.certificates.v1 import certificates_pb2
from tiphys_apimachinery.errors import NotFound
from tiphys_client.controller import RequeueAfter
from tiphys_controller_manager.controllers.certificates.requests import ends_at
from tiphys_controller_manager.frame import Context, Watch, own_key

Request = certificates_pb2.CertificateSigningRequest


class CertificateCleaner:
    """Keys are names of requests."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._clock = context.clock
        self._requests = context.informers.of(Request)

    def watches(self) -> Iterable[Watch]:
        """The requests."""
        return (Watch(Request, own_key),)

    def first_keys(self) -> Iterable[str]:
        """None: every request is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Delete one request when its time is over, or come back then. Raises errors of the API."""
        request = self._requests.get(key)
        if request is None:
            return None
        left_s = (ends_at(request) - self._clock.now()).total_seconds()
        if left_s > 0:
            return RequeueAfter(left_s)
        try:
            await self._client.delete(Request, request.metadata.name)
        except NotFound:
            return None
        return None
