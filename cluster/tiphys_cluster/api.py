"""How the command speaks to the cluster's API server without loading a client: HTTPS with the user's certificate."""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiphys_cluster.errors import ClusterError
from tiphys_cluster.layout import Layout
from tiphys_cluster.settings import Settings

_REQUEST_TIMEOUT_S = 3.0
_JSON = "application/json"
_FAILURES = (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError)


@dataclass(frozen=True, slots=True)
class Api:
    """An API server, and who asks it. Each request has a connection of its own."""

    host: str
    port: int
    ca: Path
    cert: Path
    key: Path

    async def request(
        self, method: str, path: str, body: object = None, *, content_type: str = _JSON, accept: str = _JSON
    ) -> tuple[int, bytes]:
        """Status code and body of the answer. Raises OSError or TimeoutError when nobody answers."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(str(self.cert), str(self.key))
        data = b"" if body is None else json.dumps(body).encode()
        # HTTP/1.0, whose bodies have no chunks: what follows the header, up to the end, is the object.
        head = (
            f"{method} {path} HTTP/1.0\r\nHost: {self.host}\r\nAccept: {accept}\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        async with asyncio.timeout(_REQUEST_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(self.host, self.port, ssl=context)
            try:
                writer.write(head.encode() + data)
                answer = await reader.readuntil(b"\r\n\r\n")
                content = await reader.read()
            finally:
                writer.close()
        return int(answer.split(b" ", 2)[1]), content

    async def get_json(self, path: str) -> dict[str, Any] | None:
        """The object at path, None when there is none or nobody answers."""
        try:
            code, body = await self.request("GET", path)
        except _FAILURES:
            return None
        return _object(body) if code == 200 else None

    async def ask(
        self, method: str, path: str, body: object = None, *, content_type: str = _JSON, accept: str = _JSON
    ) -> tuple[int, dict[str, Any]]:
        """Status code and object of an answer that has to come. Raises ClusterError when none does."""
        try:
            code, content = await self.request(method, path, body, content_type=content_type, accept=accept)
        except _FAILURES as err:
            raise ClusterError(
                f"the API server does not answer {method} {path}: {err or type(err).__name__}",
                "`tiphys status` shows what runs, `tiphys up` puts back what is missing.",
            ) from err
        return code, _object(content) or {}

    async def is_ready(self) -> bool:
        """Whether the API server says that it can serve."""
        try:
            code, _ = await self.request("GET", "/readyz")
        except _FAILURES:
            return False
        return code == 200


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def api_of(layout: Layout, settings: Settings) -> Api:
    """How to reach the cluster's API server from this machine, as its administrator."""
    pki = layout.pki
    return Api("127.0.0.1", settings.ports.apiserver, pki / "ca.crt", pki / "admin.crt", pki / "admin.key")
