"""Calls webhooks over HTTPS, on connections that are kept."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import aiohttp

from tiphys_apiserver.admission.webhooks.hooks import Endpoint
from tiphys_apiserver.authentication.review_client import read_answer
from tiphys_apiserver.server.egress import Egress

_MAX_ANSWER_BYTES = 16 * 1024 * 1024
_KEPT_CONNECTIONS = 100


class CallFailed(Exception):
    """There is no answer; the text tells why."""


# From (namespace, name) and port of a service to host and port that the server can connect to; raises CallFailed.
Resolve = Callable[[tuple[str, str], int], Awaitable[tuple[str, int]]]


class WebhookCaller:
    """Posts JSON to endpoints. close() ends it; until then connections are kept for the next call."""

    def __init__(self, resolve: Resolve, egress: Egress | None = None) -> None:
        self._resolve = resolve
        self._egress = egress or Egress()
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[bytes, ssl.SSLContext] = {}

    async def post(self, endpoint: Endpoint, body: bytes, *, timeout_s: float) -> bytes:
        """The answer's body. Raises CallFailed, also after timeout_s."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._post(endpoint, body, timeout_s)
        except TimeoutError as err:
            raise CallFailed(f"context deadline exceeded: no answer within {timeout_s:g}s") from err
        except (aiohttp.ClientError, OSError, ssl.SSLError) as err:
            raise CallFailed(f'Post "{shown(endpoint, timeout_s)}": {err or type(err).__name__}') from err

    async def _post(self, endpoint: Endpoint, body: bytes, timeout_s: float) -> bytes:
        url, server_name = await self._locate(endpoint, timeout_s)
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Host": urlsplit(url).netloc}
        if server_name:
            headers["Host"] = server_name
        async with await self._send(endpoint, url, server_name, body=body, headers=headers) as answer:
            content = await read_answer(answer, _MAX_ANSWER_BYTES)
            if answer.status != 200:
                text = content[:512].decode(errors="replace").strip()
                raise CallFailed(text or f"an error on the server: HTTP status {answer.status}")
            return content

    async def _send(
        self, endpoint: Endpoint, url: str, server_name: str, *, body: bytes, headers: dict[str, str]
    ) -> aiohttp.ClientResponse:
        """The answer's head. Services are reached by the first egress proxy that is there, where there are any."""
        proxies = self._egress.proxies if endpoint.service is not None else ()
        for proxy in proxies or (None,):
            try:
                return await self._open().post(
                    url,
                    data=body,
                    headers=headers,
                    ssl=self._context(endpoint.ca_bundle),
                    server_hostname=server_name or None,
                    allow_redirects=False,
                    proxy=proxy.url if proxy is not None else None,
                )
            except aiohttp.ClientProxyConnectionError:
                # Nothing was sent yet.
                if proxy is None or proxy == proxies[-1]:
                    raise
                self._egress.pass_over(proxy)
        raise CallFailed("there is no way to the service")

    async def _locate(self, endpoint: Endpoint, timeout_s: float) -> tuple[str, str]:
        """The URL to call, and the name that its certificate must have where that is not the URL's host."""
        if endpoint.service is None:
            return _with_timeout(endpoint.url, timeout_s), ""
        host, port = await self._resolve(endpoint.service, endpoint.port)
        namespace, name = endpoint.service
        path = f"/{endpoint.path.lstrip('/')}"
        return _with_timeout(f"https://{host}:{port}{path}", timeout_s), f"{name}.{namespace}.svc"

    def _context(self, ca_bundle: bytes) -> ssl.SSLContext:
        context = self._contexts.get(ca_bundle)
        if context is None:
            context = ssl.create_default_context(cadata=ca_bundle.decode(errors="replace") if ca_bundle else None)
            self._contexts[ca_bundle] = context
        return context

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            connector = aiohttp.TCPConnector(limit=_KEPT_CONNECTIONS)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        return self._session

    async def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def shown(endpoint: Endpoint, timeout_s: float) -> str:
    """The URL as messages tell it."""
    if endpoint.service is None:
        return _with_timeout(endpoint.url, timeout_s)
    namespace, name = endpoint.service
    return _with_timeout(f"https://{name}.{namespace}.svc:{endpoint.port}/{endpoint.path.lstrip('/')}", timeout_s)


def _with_timeout(url: str, timeout_s: float) -> str:
    """The URL with the time limit told to the webhook."""
    return f"{url}{'&' if '?' in url else '?'}timeout={timeout_s:g}s"
