"""Posts reviews to a service outside the cluster that a kubeconfig file names: webhooks that know users and rights."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from tiphys_client.kubeconfig import ClientConfig
from tiphys_component.clock import Clock

# Source: apiserver pkg/util/webhook, DefaultRetryBackoffWithInitialDelay and the client's time-out.
_TRIES = 5
_FIRST_PAUSE_S = 0.5
_TIMEOUT_S = 30.0
_MAX_ANSWER_BYTES = 3 * 1024 * 1024


class ReviewFailed(Exception):
    """No usable answer came; the text tells why."""


class ReviewClient:
    """Posts to the server of a kubeconfig, on connections that are kept until close()."""

    def __init__(self, config: ClientConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._tls = tls_of(config) if config.server_url.startswith("https:") else None
        self._session: aiohttp.ClientSession | None = None

    async def post(self, review: dict[str, Any]) -> dict[str, Any]:
        """The review as answered. Tries again where the service does not answer; raises ReviewFailed at last."""
        body = orjson.dumps(review)
        pause_s = _FIRST_PAUSE_S
        for attempt in range(_TRIES):
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    return await self._post(body)
            except (aiohttp.ClientError, OSError, TimeoutError) as err:
                if attempt == _TRIES - 1:
                    raise ReviewFailed(f"{self._config.server_url}: {err or type(err).__name__}") from err
            await self._clock.sleep(pause_s)
            pause_s *= 1.5
        raise AssertionError("the loop returns or raises")

    async def _post(self, body: bytes) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        token = self._config.token
        if self._config.token_file is not None:
            token = self._config.token_file.read_text().strip()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        async with self._open().post(
            self._config.server_url,
            data=body,
            headers=headers,
            ssl=self._tls if self._tls is not None else True,
            server_hostname=self._config.tls_server_name or None,
            allow_redirects=False,
        ) as answer:
            content = await read_answer(answer, _MAX_ANSWER_BYTES)
            if answer.status == 429 or answer.status >= 500:
                raise aiohttp.ClientPayloadError(f"HTTP status {answer.status}")
            if answer.status not in (200, 201):
                raise ReviewFailed(f"{self._config.server_url}: HTTP status {answer.status}")
        try:
            document = orjson.loads(content)
        except orjson.JSONDecodeError as err:
            raise ReviewFailed(f"{self._config.server_url}: the answer is no JSON") from err
        if not isinstance(document, dict) or not isinstance(document.get("status"), dict):
            raise ReviewFailed(f"{self._config.server_url}: the answer has no status")
        return document

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(trust_env=False)
        return self._session

    async def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def read_answer(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body. Raises aiohttp.ClientPayloadError for one of more than limit bytes."""
    parts: list[bytes] = []
    size = 0
    async for part in answer.content.iter_any():
        size += len(part)
        if size > limit:
            raise aiohttp.ClientPayloadError(f"the answer is larger than {limit} bytes")
        parts.append(part)
    return b"".join(parts)


def tls_of(config: ClientConfig) -> ssl.SSLContext:
    """TLS as a kubeconfig asks for it. Raises ValueError for certificates that can't be used."""
    context = ssl.create_default_context(cadata=config.ca_pem.decode() if config.ca_pem else None)
    if config.insecure_skip_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.cert_pem:
        # OpenSSL's Python face takes certificates of one's own from files only.
        with tempfile.TemporaryDirectory(prefix="tiphys-webhook-") as folder:
            pair = Path(folder) / "client.pem"
            pair.touch(mode=0o600)
            pair.write_bytes(config.cert_pem + b"\n" + config.key_pem)
            context.load_cert_chain(pair)
    return context
