"""Reads by REST, for what has no gRPC service: groups that another server serves behind the API server."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import orjson

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.errors import APIError, ServiceUnavailable, Timeout, from_status
from tiphys_client.kubeconfig import ClientConfig
from tiphys_client.transport import token_source_of

_TIMEOUT_S = 30.0


class PathReader(Protocol):
    """Reads documents of the API by their paths."""

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """The document at a path, as JSON values. Raises errors of tiphys_apimachinery.errors."""
        ...

    async def close(self) -> None:
        """Close connections; may be repeated."""
        ...


class NoPaths:
    """For who has no REST: every read says so."""

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Raises ServiceUnavailable."""
        raise ServiceUnavailable(f"{path}: there is no way to the API server by REST")

    async def close(self) -> None:
        """Nothing is open."""


class RestReader:
    """A server's HTTPS port. Connects with the first read, and keeps few connections."""

    def __init__(self, config: ClientConfig, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._config = config
        self._timeout_s = timeout_s
        self._token: Callable[[], str] = token_source_of(config)
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """The document at a path."""
        headers = {"Accept": "application/json"}
        if token := self._token():
            headers["Authorization"] = f"Bearer {token}"
        try:
            async with self._opened().get(path, params=query, headers=headers) as answer:
                body = await answer.read()
        except TimeoutError as err:
            raise Timeout(f"{path}: no answer within {self._timeout_s:g} s") from err
        except (aiohttp.ClientError, OSError) as err:
            raise ServiceUnavailable(f"{path}: {err}") from err
        if answer.status >= 400:
            raise _error(answer.status, body)
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as err:
            raise ServiceUnavailable(f"{path}: the answer is no JSON") from err

    async def close(self) -> None:
        """Close the connections; may be repeated."""
        opened, self._session = self._session, None
        if opened is not None:
            await opened.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=_context(self._config), limit=8, keepalive_timeout=60.0)
            timeout = aiohttp.ClientTimeout(total=self._timeout_s)
            self._session = aiohttp.ClientSession(
                self._config.server_url, connector=connector, timeout=timeout, auto_decompress=True
            )
        return self._session


def _context(config: ClientConfig) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=config.ca_pem.decode() if config.ca_pem else None)
    if config.insecure_skip_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.cert_pem:
        # Python's ssl reads certificates from files alone.
        with tempfile.TemporaryDirectory(prefix="tiphys-client-") as folder:
            pair = Path(folder, "pair.pem")
            pair.touch(mode=0o600)
            pair.write_bytes(config.cert_pem + b"\n" + config.key_pem)
            context.load_cert_chain(pair)
    return context


def _error(code: int, body: bytes) -> APIError:
    """The error of a Status, or of a page that is none."""
    try:
        document = orjson.loads(body)
        message, reason = str(document.get("message") or ""), str(document.get("reason") or "")
    except (orjson.JSONDecodeError, AttributeError):
        message, reason = body[:200].decode(errors="replace").strip(), ""
    return from_status(meta_pb2.Status(status="Failure", code=code, message=message, reason=reason))
