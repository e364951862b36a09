"""/proxy of pods and services over real connections, and the way there through an egress proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from tests.support.apiserver import RunningServer, read_reply, running_server

PODS = "/api/v1/namespaces/default/pods"
# Of a documentation network (RFC 5737): nothing but the egress proxy leads there.
POD_IP = "192.0.2.7"


async def _echo(request: web.Request) -> web.StreamResponse:
    if request.headers.get("Upgrade") == "websocket":
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data.upper())
        return socket
    if request.path == "/stream":
        answer = web.StreamResponse()
        await answer.prepare(request)
        for line in (b"one\n", b"two\n"):
            await answer.write(line)
        return answer
    if request.path == "/moved":
        return web.Response(status=302, headers={"Location": "elsewhere"})
    body = await request.read()
    seen = {"method": request.method, "path": request.raw_path, "size": len(body), "headers": dict(request.headers)}
    return web.json_response(seen, status=int(request.query.get("status", "200")))


@asynccontextmanager
async def _listening(port: int = 0) -> AsyncIterator[int]:
    application = web.Application(client_max_size=1 << 25)
    application.router.add_route("*", "/{tail:.*}", _echo)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@dataclass
class FakeProxy:
    """An HTTP proxy that leads every tunnel to one port here, and remembers what was asked for."""

    target: int
    asked: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head.split(b" ")[1].decode())
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\ncannot reach it\n")
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_pipe(reader, far_writer), name="there")
            tasks.create_task(_pipe(far_reader, writer), name="back")


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


@dataclass
class Site:
    """A server whose only pod is reached through a proxy."""

    server: RunningServer
    proxy: FakeProxy


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with _listening() as port:
        proxy = FakeProxy(port)
        listener = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        # The first proxy is on a node that is gone.
        async with running_server(egress_proxy=("http://127.0.0.1:9", address)) as server:
            await _make_pod(server)
            yield Site(server, proxy)
        listener.close()


async def _make_pod(server: RunningServer) -> None:
    pod: dict[str, Any] = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    pod["spec"]["containers"][0]["ports"] = [{"name": "web", "containerPort": 8080}]
    account = {"metadata": {"name": "default"}}
    await server.http("POST", "/api/v1/namespaces/default/serviceaccounts", account)
    assert (await server.http("POST", PODS, pod)).status == 201
    status = {"status": {"podIP": POD_IP, "podIPs": [{"ip": POD_IP}], "phase": "Running"}}
    merge = "application/merge-patch+json"
    assert (await server.http("PATCH", f"{PODS}/p/status", status, content_type=merge)).status == 200


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_A36_every_method_reaches_the_pod_with_path_query_and_body(site: Site, method: str) -> None:
    body = b"x" * 10 if method != "GET" else None
    reply = await site.server.http(method, f"{PODS}/p:web/proxy/a/b?c=d", body, headers={"Authorization": "Bearer t"})
    seen = reply.json()
    assert (seen["method"], seen["path"], seen["size"]) == (method, "/a/b?c=d", len(body or b""))
    assert "Authorization" not in seen["headers"], "the caller's credentials are for this server only"
    assert site.proxy.asked == [f"{POD_IP}:8080"]


async def test_A36_long_bodies_pass_in_pieces(site: Site) -> None:
    reader, writer = await site.server.connect()
    writer.write(f"POST {PODS}/p/proxy/up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    piece = b"y" * (1 << 20)
    for _ in range(5):
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    assert (await read_reply(reader)).json()["size"] == 5 << 20
    writer.close()


async def test_A36_status_streams_and_redirects_pass_as_they_are(site: Site) -> None:
    assert (await site.server.http("GET", f"{PODS}/p/proxy/x?status=418")).status == 418
    assert (await site.server.http("GET", f"{PODS}/p/proxy/stream")).body == b"one\ntwo\n"
    moved = await site.server.http("GET", f"{PODS}/p/proxy/moved")
    assert (moved.status, moved.header("Location")) == (302, ["elsewhere"])


async def test_A36_the_root_of_a_proxy_is_a_folder(site: Site) -> None:
    reply = await site.server.http("GET", f"{PODS}/p/proxy?a=b")
    assert (reply.status, reply.header("Location")) == (301, [f"{PODS}/p/proxy/?a=b"])
    assert (await site.server.http("GET", f"{PODS}/p/proxy/?a=b")).json()["path"] == "/?a=b"


async def test_A36_websockets_pass(site: Site) -> None:
    from aiohttp import ClientSession

    url = f"https://127.0.0.1:{site.server.api.secure_port}{PODS}/p/proxy/talk"
    async with (
        ClientSession() as session,
        session.ws_connect(url, ssl=site.server.client_context("admin")) as socket,
    ):
        await socket.send_str("hello")
        assert (await socket.receive_str(timeout=5)) == "HELLO"


async def test_A36_nobody_there_is_503(site: Site) -> None:
    site.proxy.target = 9
    reply = await site.server.http("GET", f"{PODS}/p/proxy/")
    assert reply.status == 503
    assert "cannot reach it" in reply.json()["message"]


async def test_A36_proxy_is_a_right_of_its_own(site: Site) -> None:
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    await _allow(site.server, rule)
    assert (await site.server.http("GET", f"{PODS}/p/proxy/", user="alice")).status == 403
    await _allow(site.server, {**rule, "resources": ["pods/proxy"]})
    assert (await site.server.http("GET", f"{PODS}/p/proxy/", user="alice")).status == 200
    assert (await site.server.http("POST", f"{PODS}/p/proxy/", user="alice")).status == 403


async def _allow(server: RunningServer, rule: dict[str, Any]) -> None:
    base = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    name = rule["resources"][0].replace("/", "-")
    await server.http("POST", f"{base}/roles", {"metadata": {"name": name}, "rules": [rule]})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}
    binding = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
    assert (await server.http("POST", f"{base}/rolebindings", binding)).status == 201


async def test_A36_a_service_is_reached_by_its_ready_endpoints(site: Site) -> None:
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"name": "web", "port": 80, "targetPort": 8080}]}}
    assert (await site.server.http("POST", "/api/v1/namespaces/default/services", service)).status == 201
    path = "/api/v1/namespaces/default/services/http:s:web/proxy/page"
    assert (await site.server.http("GET", path)).status == 503
    piece = {
        "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "ports": [{"name": "web", "port": 8080}],
        "endpoints": [{"addresses": [POD_IP], "conditions": {"ready": True}}],
    }
    base = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    assert (await site.server.http("POST", base, piece)).status == 201
    assert (await site.server.http("GET", path)).json()["path"] == "/page"
