"""gRPC servers and channels."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tiphys_component import rpc, tls
from tiphys_component.app import StartupError
from tiphys_component.certificates import CertificateAuthority
from tiphys_component.rpc import ErrorReply, Server, Servicer, channel
from tiphys_component.tls import TLSFiles

NAME = "tiphys.test.v1.EchoService"


class Taken(Exception):
    """An error the mapper knows."""


def map_error(err: Exception) -> ErrorReply | None:
    if isinstance(err, Taken):
        return grpc.StatusCode.ALREADY_EXISTS, f"taken: {err}", (("reason-bin", b"\x00\x01"),)
    return None


async def echo(request: bytes, context: Any) -> bytes:
    if request == b"taken":
        raise Taken("name")
    if request == b"abort":
        await context.abort(grpc.StatusCode.DATA_LOSS, "as I say")
    if request == b"fault":
        raise KeyError("secret")
    return request


async def count(request: bytes, _context: Any) -> AsyncIterator[bytes]:
    for number in range(int(request)):
        yield str(number).encode()
    raise Taken("end")


async def collect(replies: AsyncIterable[bytes], seen: list[bytes]) -> None:
    async for reply in replies:
        seen.append(reply)


def register(server: Any) -> None:
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Count": grpc.unary_stream_rpc_method_handler(count),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))


def make_server(bind: str = "127.0.0.1:0", files: TLSFiles | None = None) -> Server:
    return Server(bind, files, [Servicer((NAME,), register)], map_error, grace_s=0.05)


async def call(where: grpc.aio.Channel, request: bytes) -> bytes:
    reply: bytes = await where.unary_unary(f"/{NAME}/Echo", None, None)(request, timeout=5)
    return reply


async def test_call_passes_over_tcp_and_unix_socket(tmp_path: Path) -> None:
    for bind in ("127.0.0.1:0", rpc.unix_address(tmp_path / "s.sock")):
        async with make_server(bind) as server, channel(server.address) as where:
            assert await call(where, b"hello") == b"hello"


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        pytest.param(b"taken", grpc.StatusCode.ALREADY_EXISTS, "taken: name", id="mapped"),
        pytest.param(b"abort", grpc.StatusCode.DATA_LOSS, "as I say", id="aborted by the handler"),
        pytest.param(b"fault", grpc.StatusCode.INTERNAL, "internal error", id="unexpected"),
    ],
)
async def test_error_becomes_a_status(request_: bytes, code: grpc.StatusCode, text: str) -> None:
    async with make_server() as server, channel(server.address) as where:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call(where, request_)
    assert failed.value.code() is code
    assert text in (failed.value.details() or "")
    if request_ == b"taken":
        reasons = dict(failed.value.trailing_metadata())  # type: ignore[arg-type,var-annotated]  # stubs: a tuple
        assert reasons["reason-bin"] == b"\x00\x01"


@pytest.mark.parametrize("turns", range(5))
async def test_server_cancelled_while_it_begins_can_begin_again(tmp_path: Path, turns: int) -> None:
    bind = rpc.unix_address(tmp_path / "s")
    task = asyncio.ensure_future(Server(bind, None, ()).start())
    for _ in range(turns):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with Server(bind, None, ()):
        pass


async def test_error_in_a_stream_comes_after_its_replies() -> None:
    seen: list[bytes] = []
    async with make_server() as server, channel(server.address) as where:
        replies = where.unary_stream(f"/{NAME}/Count", None, None)(b"3", timeout=5)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await collect(replies, seen)
    assert seen == [b"0", b"1", b"2"]
    assert failed.value.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_health_answers_for_server_and_service() -> None:
    async with make_server() as server, channel(server.address) as where:
        stub = health_pb2_grpc.HealthStub(where)
        for name in ("", NAME):
            reply = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        await server.set_serving(NAME, False)
        reply = await stub.Check(health_pb2.HealthCheckRequest(service=NAME), timeout=5)
        assert reply.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_reflection_lists_the_services() -> None:
    async with make_server() as server, channel(server.address) as where:
        stub = reflection_pb2_grpc.ServerReflectionStub(where)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        names: list[str] = []
        async for reply in stub.ServerReflectionInfo(iter([ask]), timeout=5):
            names += [service.name for service in reply.list_services_response.service]
    assert {NAME, "grpc.health.v1.Health"} <= set(names)


async def test_second_server_on_the_port_is_refused_and_told_what_to_do() -> None:
    async with make_server() as server:
        with pytest.raises(StartupError, match="--bind-address") as refused:
            await make_server(server.address).start()
    assert server.address in refused.value.message


async def test_stopping_twice_is_safe() -> None:
    server = make_server()
    await server.start()
    await server.stop()
    await server.stop()


async def test_run_serves_until_cancelled() -> None:
    server = make_server()
    task = asyncio.ensure_future(server.run())
    while not server.port:  # noqa: ASYNC110  the server has no event for this
        await asyncio.sleep(0)
    async with channel(server.address) as where:
        assert await call(where, b"up") == b"up"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_H21_mutual_tls_and_renewal_of_the_server_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_LOOK_EVERY_S", 0.0)
    old, new = CertificateAuthority.create("old"), CertificateAuthority.create("new")
    cert, key = tmp_path / "s.crt", tmp_path / "s.key"
    old.issue("server", sans=("127.0.0.1",), server=True).write(cert, key)
    (tmp_path / "ca.crt").write_bytes(old.cert_pem)
    (tmp_path / "new.crt").write_bytes(new.cert_pem)
    old.issue("admin", client=True).write(tmp_path / "c.crt", tmp_path / "c.key")
    files = TLSFiles(cert, key, tmp_path / "ca.crt")
    async with make_server(files=files) as server:
        admin = TLSFiles(tmp_path / "c.crt", tmp_path / "c.key", tmp_path / "ca.crt")
        async with channel(server.address, admin) as where:
            assert await call(where, b"a") == b"a"
        async with channel(server.address, TLSFiles(ca=tmp_path / "ca.crt")) as where:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(where, b"b")
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        new.issue("server", sans=("127.0.0.1",), server=True).write(cert, key)
        renewed = TLSFiles(tmp_path / "c.crt", tmp_path / "c.key", tmp_path / "new.crt")
        async with channel(server.address, renewed) as where:
            assert await call(where, b"c") == b"c"
