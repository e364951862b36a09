"""Webhooks named by a service are called through the egress proxies, with TLS from end to end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.apiserver.test_object_proxy import FakeProxy
from tiphys_apiserver.admission.webhooks.caller import CallFailed, WebhookCaller
from tiphys_apiserver.admission.webhooks.hooks import Endpoint
from tiphys_apiserver.server.egress import Egress, ProxyAddress
from tiphys_component.tls import CertificateAuthority

GONE = ProxyAddress("127.0.0.1", 9)


@dataclass
class Hook:
    """A webhook that answers {}, and the only way to it."""

    proxy: FakeProxy
    address: ProxyAddress
    ca_bundle: bytes

    def endpoint(self) -> Endpoint:
        return Endpoint(url="", service=("default", "hook"), port=8443, path="/ask", ca_bundle=self.ca_bundle)


@pytest.fixture
async def hook(tmp_path: Path) -> AsyncIterator[Hook]:
    authority = CertificateAuthority.create("hook-ca")
    authority.credential.write(tmp_path / "ca.crt", tmp_path / "ca.key")
    authority.issue("hook", sans=["hook.default.svc"], server=True).write(tmp_path / "crt", tmp_path / "key")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "crt", tmp_path / "key")

    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    proxy = FakeProxy(server.sockets[0].getsockname()[1])
    listener = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    address = ProxyAddress("127.0.0.1", listener.sockets[0].getsockname()[1])
    yield Hook(proxy, address, (tmp_path / "ca.crt").read_bytes())
    if proxy.asked:
        await ended.wait()
    listener.close()
    server.close()


async def _resolve(_service: tuple[str, str], port: int) -> tuple[str, int]:
    return "192.0.2.9", port


async def test_a_service_is_called_by_the_first_proxy_that_is_there(hook: Hook) -> None:
    egress = Egress([GONE, hook.address])
    caller = WebhookCaller(_resolve, egress)
    try:
        assert await caller.post(hook.endpoint(), b"{}", timeout_s=5) == b"{}"
    finally:
        await caller.close()
    assert hook.proxy.asked == ["192.0.2.9:8443"]
    assert egress.proxies == (hook.address, GONE)


async def test_without_a_proxy_that_answers_the_call_fails(hook: Hook) -> None:
    caller = WebhookCaller(_resolve, Egress([GONE]))
    try:
        with pytest.raises(CallFailed, match=r"hook\.default\.svc"):
            await caller.post(hook.endpoint(), b"{}", timeout_s=5)
    finally:
        await caller.close()
