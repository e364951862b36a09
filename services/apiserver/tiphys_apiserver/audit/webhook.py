"""Sends events, many at once, to a service outside the cluster that a kubeconfig names; run in the trail's thread."""

from __future__ import annotations

import http.client
import ssl
import threading
from urllib.parse import urlsplit

from tiphys_apiserver.authentication.review_client import tls_of
from tiphys_client.kubeconfig import ClientConfig

# Source: apiserver plugin/pkg/audit/webhook: 10 s to begin with, half as long again each time; we give up sooner.
_PAUSES_S = (0.5, 2.0, 10.0)
_TIMEOUT_S = 10.0
# While the server stops.
_LAST_TIMEOUT_S = 2.0
_HEAD = b'{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":['


class WebhookSink:
    """Posts each batch as an EventList; one that is refused is sent again a few times, then lost."""

    def __init__(self, config: ClientConfig) -> None:
        """Raises ValueError for certificates that can't be used."""
        self._config = config
        self._tls = tls_of(config) if config.server_url.startswith("https:") else None
        self._closed = threading.Event()

    def write(self, lines: list[bytes]) -> None:
        """Send a batch. Raises OSError where it is lost."""
        body = _HEAD + b",".join(line.rstrip(b"\n") for line in lines) + b"]}"
        for pause_s in (*_PAUSES_S, None):
            try:
                self._post(body)
                return
            except (OSError, http.client.HTTPException) as err:
                if pause_s is None or self._closed.is_set():
                    raise OSError(f"{self._config.server_url}: {err or type(err).__name__}") from err
            self._closed.wait(pause_s)

    def close(self) -> None:
        """Wait no longer than must be: what is written from now on is tried once."""
        self._closed.set()

    def _post(self, body: bytes) -> None:
        url = urlsplit(self._config.server_url)
        connection = self._connection(url.hostname or "", url.port)
        headers = {"Content-Type": "application/json"}
        token = self._config.token
        if self._config.token_file is not None:
            token = self._config.token_file.read_text().strip()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        try:
            connection.request("POST", f"{url.path or '/'}{'?' + url.query if url.query else ''}", body, headers)
            status = connection.getresponse().status
        finally:
            connection.close()
        if status not in (200, 201, 202, 204):
            raise ConnectionError(f"HTTP status {status}")

    def _connection(self, host: str, port: int | None) -> http.client.HTTPConnection:
        timeout_s = _LAST_TIMEOUT_S if self._closed.is_set() else _TIMEOUT_S
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=timeout_s)
        context: ssl.SSLContext = self._tls
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
