"""Logs and commands over gRPC, through the server to a kubelet that speaks WebSocket."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from aiohttp import WSMsgType, web

from tests.support.apiserver import RunningServer, shared_pki
from tiphys.api.core.v1 import pod_options_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys.apiserver.v1 import wire_pb2

PODS = "tiphys.apiserver.core.v1.PodService"


async def serve_exec(request: web.Request) -> web.WebSocketResponse:
    """Echoes stdin to stdout in capitals until it is closed, then exits with 3."""
    socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
    await socket.prepare(request)
    await socket.send_bytes(b"\x01" + " ".join(request.query.getall("command")).encode())
    async for message in socket:
        if message.type is not WSMsgType.BINARY:
            break
        if message.data[0] == 255:
            await socket.send_bytes(b"\x02bye")
            await socket.send_bytes(b'\x03{"status":"Failure","reason":"NonZeroExitCode","code":500}')
            break
        if message.data[0] == 4:
            await socket.send_bytes(b"\x01" + message.data[1:])
        else:
            await socket.send_bytes(b"\x01" + message.data[1:].upper())
    await socket.close()
    return socket


async def serve_log(request: web.Request) -> web.StreamResponse:
    """Two lines and the query, or a refusal."""
    if request.query.get("previous"):
        return web.json_response(
            {"kind": "Status", "status": "Failure", "code": 400, "message": "no such run"}, status=400
        )
    response = web.StreamResponse()
    await response.prepare(request)
    for line in (b"one\n", b"two\n", request.query_string.encode()):
        await response.write(line)
    return response


@asynccontextmanager
async def pod_on_a_kubelet(server: RunningServer) -> AsyncIterator[None]:
    folder = shared_pki().folder
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.crt"))
    tls.load_cert_chain(folder / "server.crt", folder / "server.key")
    app = web.Application()
    app.router.add_get("/exec/default/p/c", serve_exec)
    app.router.add_get("/containerLogs/default/p/c", serve_log)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    await server.http("POST", "/api/v1/nodes", {"metadata": {"name": "n"}})
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": runner.addresses[0][1]}},
    }
    merge = "application/merge-patch+json"
    await server.http("PATCH", "/api/v1/nodes/n/status", {"status": status}, content_type=merge)
    spec = {"nodeName": "n", "containers": [{"name": "c", "image": "busybox"}]}
    await server.http("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": "p"}, "spec": spec})
    try:
        yield
    finally:
        await runner.cleanup()


async def read(call: grpc.aio.StreamStreamCall[wire_pb2.ExecRequest, wire_pb2.ExecResponse]) -> wire_pb2.ExecResponse:
    """The next answer, where the stream is not at its end."""
    found = await call.read()
    assert isinstance(found, wire_pb2.ExecResponse)
    return found


async def test_A55_command_streams_both_ways_and_ends_with_its_status(server: RunningServer) -> None:
    options = pod_options_pb2.PodExecOptions(command=["sh", "-i"], stdin=True, tty=True)
    start = wire_pb2.ExecStart(namespace="default", name="p", options=options.SerializeToString())
    async with pod_on_a_kubelet(server), asyncio.timeout(5):
        call = server.channel().stream_stream(
            f"/{PODS}/Exec",
            request_serializer=wire_pb2.ExecRequest.SerializeToString,
            response_deserializer=wire_pb2.ExecResponse.FromString,
        )(None)
        await call.write(wire_pb2.ExecRequest(start=start))
        assert (await read(call)).stdout == b"sh -i"
        await call.write(wire_pb2.ExecRequest(stdin=b"hello"))
        assert (await read(call)).stdout == b"HELLO"
        await call.write(wire_pb2.ExecRequest(resize=wire_pb2.TerminalSize(width=80, height=24)))
        assert (await read(call)).stdout == b'{"Width":80,"Height":24}'
        await call.write(wire_pb2.ExecRequest(close_stdin=True))
        assert (await read(call)).stderr == b"bye"
        last = await read(call)
        status = meta_pb2.Status.FromString(last.status)
        assert (status.status, status.reason) == ("Failure", "NonZeroExitCode")
        assert await call.read() is grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs do not know it


async def read_log(server: RunningServer, user: str = "admin", **options: Any) -> bytes:
    raw = pod_options_pb2.PodLogOptions(**options).SerializeToString()
    request = wire_pb2.GetLogRequest(namespace="default", name="p", options=raw)
    call = server.channel(user).unary_stream(
        f"/{PODS}/GetLog", None, response_deserializer=wire_pb2.GetLogResponse.FromString
    )(request.SerializeToString())
    return b"".join([piece.data async for piece in call])


async def test_log_is_streamed(server: RunningServer) -> None:
    async with pod_on_a_kubelet(server), asyncio.timeout(5):
        assert await read_log(server, tailLines=0, follow=True) == b"one\ntwo\nfollow=true&tailLines=0"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await read_log(server, previous=True)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert refused.value.details() == "no such run"
        with pytest.raises(grpc.aio.AioRpcError) as forbidden:
            await read_log(server, user="alice")
        assert forbidden.value.code() is grpc.StatusCode.PERMISSION_DENIED
