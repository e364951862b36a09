"""exec, portforward and log through the API server to a kubelet: bytes pass as they are, both ways."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.apiserver import RunningServer, shared_pki

PODS = "/api/v1/namespaces/default/pods"


class FakeKubelet:
    """Says 101 to every upgrade and echoes in capitals; answers everything else with a log in chunks."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.refuse = False
        self.port = 0
        self.clients: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        certificate: Any = writer.get_extra_info("peercert")
        self.clients.append(dict(part[0] for part in certificate["subject"])["commonName"])
        if self.refuse:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\nno such")
        elif "upgrade:" in head.lower():
            # The first bytes of the new protocol come in one piece with the answer.
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\nhello\x00"
            )
            while data := await reader.read(65536):
                writer.write(data.upper())
                await writer.drain()
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
            for line in (b"one\n", b"two\n"):
                writer.write(b"%x\r\n%b\r\n" % (len(line), line))
            writer.write(b"0\r\n\r\n")
        writer.close()


@asynccontextmanager
async def kubelet_for(server: RunningServer) -> AsyncIterator[FakeKubelet]:
    """A fake kubelet with a node n that points at it, and a pod p on that node."""
    folder = shared_pki().folder
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    kubelet = FakeKubelet()
    listener = await asyncio.start_server(kubelet.serve, "127.0.0.1", 0, ssl=context)
    kubelet.port = listener.sockets[0].getsockname()[1]
    await server.http("POST", "/api/v1/nodes", {"metadata": {"name": "n"}})
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port}},
    }
    merge = "application/merge-patch+json"
    await server.http("PATCH", "/api/v1/nodes/n/status", {"status": status}, content_type=merge)
    containers = [{"name": "c", "image": "busybox"}]
    made = await server.http(
        "POST", PODS, {"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": containers}}
    )
    assert made.status == 201, made.body
    try:
        yield kubelet
    finally:
        listener.close()
        await listener.wait_closed()


UPGRADES = [
    pytest.param(
        "POST", "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io", id="SPDY"
    ),
    pytest.param(
        "GET",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io",
        id="WebSocket",
    ),
]


@pytest.mark.parametrize(("method", "headers"), UPGRADES)
async def test_A36_exec_is_a_tunnel_for_any_protocol(server: RunningServer, method: str, headers: str) -> None:
    async with kubelet_for(server) as kubelet:
        reader, writer = await server.connect()
        path = f"{PODS}/p/exec?command=ls&command=-l&stdin=true&stdout=1&tty=false"
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer mine\r\n{headers}\r\n\r\n".encode())
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101"), head
            assert await reader.readexactly(6) == b"hello\x00"
            for size in (1, 70_000, 1_000_000):
                data = b"x" * size
                writer.write(data)
                assert await reader.readexactly(size) == data.upper()
        writer.close()
    sent = kubelet.heads[0]
    assert sent.startswith(f"{method} /exec/default/p/c?command=ls&command=-l&input=1&output=1 HTTP/1.1\r\n")
    assert "authorization" not in sent.lower()
    assert kubelet.clients == ["admin"]


async def test_kubelets_refusal_is_passed_on(server: RunningServer) -> None:
    async with kubelet_for(server) as kubelet:
        kubelet.refuse = True
        headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
        reply = await server.http("POST", f"{PODS}/p/portforward", headers=headers)
    assert (reply.status, reply.body) == (404, b"no such")
    assert kubelet.heads[0].startswith("POST /portForward/default/p HTTP/1.1")


async def test_A36_log_is_streamed_on(server: RunningServer) -> None:
    async with kubelet_for(server) as kubelet:
        reply = await server.http("GET", f"{PODS}/p/log?tailLines=5&follow=true&container=c")
    assert (reply.status, reply.body) == (200, b"one\ntwo\n")
    assert kubelet.heads[0].startswith("GET /containerLogs/default/p/c?follow=true&tailLines=5 HTTP/1.1")


REFUSALS = [
    pytest.param("log?container=x", 400, "container x is not valid for pod p", id="unknown container"),
    pytest.param("exec?stdout=1", 400, "you must specify at least one command", id="no command"),
    pytest.param("exec?command=ls", 400, "you must specify at least one of stdin, stdout, stderr", id="no stream"),
]


@pytest.mark.parametrize(("road", "code", "message"), REFUSALS)
async def test_requests_that_name_nothing(server: RunningServer, road: str, code: int, message: str) -> None:
    async with kubelet_for(server):
        reply = await server.http("GET", f"{PODS}/p/{road}")
    assert reply.status == code
    assert message in reply.json()["message"]


async def test_kubelet_that_is_away_is_503(server: RunningServer) -> None:
    async with kubelet_for(server):
        pass
    reply = await server.http("GET", f"{PODS}/p/log")
    assert (reply.status, reply.json()["reason"]) == (503, "ServiceUnavailable")
    assert "error dialing backend" in reply.json()["message"]


async def test_pod_without_a_node_has_no_kubelet(server: RunningServer) -> None:
    await server.http("POST", PODS, {"metadata": {"name": "q"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    reply = await server.http("GET", f"{PODS}/q/log")
    assert (reply.status, reply.json()["message"]) == (400, "pod q does not have a host assigned")
