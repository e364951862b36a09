"""Service account tokens for pods, by the TokenRequest subresource."""

from __future__ import annotations

from tiphys.api.authentication.v1.authentication_pb2 import TokenRequest
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.service_account_pb2 import ServiceAccount
from tiphys_apimachinery.errors import APIError
from tiphys_component.clock import Clock
from tiphys_kubelet.api import ApiClient
from tiphys_kubelet.pod_state import to_datetime
from tiphys_kubelet.volumes.interface import VolumeError
from tiphys_kubelet.volumes.projected import Token


class TokenSource:
    """Asks the API server for tokens that are bound to a pod."""

    def __init__(self, client: ApiClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def request(self, pod: Pod, audience: str, lifetime_s: int) -> Token:
        """A token of the pod's service account. Raises VolumeError."""
        account = pod.spec.serviceAccountName or "default"
        wanted = TokenRequest()
        wanted.spec.audiences.extend([audience] if audience else [])
        wanted.spec.expirationSeconds = lifetime_s
        bound = wanted.spec.boundObjectRef
        bound.kind, bound.apiVersion = "Pod", "v1"
        bound.name, bound.uID = pod.metadata.name, pod.metadata.uid
        try:
            given = await self._client.post(
                ServiceAccount, "CreateToken", name=account, namespace=pod.metadata.namespace, body=wanted
            )
        except APIError as err:
            raise VolumeError(f"failed to fetch token: {err.message}") from err
        now = self._clock.now()
        expires_at = to_datetime(given.status.expirationTimestamp.seconds * 1_000_000_000)
        return Token(given.status.token, now, expires_at)
