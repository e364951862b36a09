"""Transports: errors, lost connections, credentials."""

import asyncio
from collections.abc import AsyncIterable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from tests.unit.client.builders import config_map
from tests.unit.client.grpc_fake import Bridge, make_server
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys_apimachinery.errors import (
    AlreadyExists,
    APIError,
    Conflict,
    InternalError,
    Invalid,
    NotFound,
    ServiceUnavailable,
    StatusCause,
    StatusDetails,
    Timeout,
    TooManyRequests,
    Unauthorized,
)
from tiphys_client.client import Client
from tiphys_client.fake import FakeServer
from tiphys_client.grpc_status import reply_for
from tiphys_client.kubeconfig import ClientConfig, KubeconfigError
from tiphys_client.transport import FencedTransport, GrpcTransport, InProcessTransport, is_retriable
from tiphys_component.certificates import CertificateAuthority
from tiphys_component.clock import SystemClock
from tiphys_component.tls import TLSFiles


def config(address: str, **more: Any) -> ClientConfig:
    return ClientConfig(server_url="", grpc_address=address, **more)


@pytest.fixture
def fake() -> FakeServer:
    return FakeServer(SystemClock())


@pytest.mark.parametrize(
    "error",
    [
        NotFound.of("pods", "x"),
        AlreadyExists.of("pods", "x"),
        Conflict.of("pods", "x"),
        TooManyRequests.of("slow down", 7),
        Invalid("bad", details=StatusDetails(name="x", causes=(StatusCause("FieldValueInvalid", "no", "spec.a"),))),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_error_crosses_the_wire_whole(fake: FakeServer, tmp_path: Path, error: APIError) -> None:
    fake.fail("Get", ConfigMap, error)
    async with (
        make_server(Bridge(fake), f"unix:{tmp_path}/s") as server,
        GrpcTransport(config(server.address)) as transport,
    ):
        with pytest.raises(type(error)) as seen:
            await Client(transport).get(ConfigMap, "x", "default")
    assert (seen.value.code, seen.value.reason, seen.value.message) == (error.code, error.reason, error.message)
    assert seen.value.details == error.details
    assert seen.value.retry_after_s == error.retry_after_s


async def test_very_long_error_still_says_what_it_is(fake: FakeServer, tmp_path: Path) -> None:
    causes = tuple(StatusCause("FieldValueInvalid", "x" * 100, f"spec.a[{number}]") for number in range(1000))
    fake.fail("Get", ConfigMap, Invalid("y" * 100_000, details=StatusDetails(name="x", causes=causes)))
    async with (
        make_server(Bridge(fake), f"unix:{tmp_path}/s") as server,
        GrpcTransport(config(server.address)) as transport,
    ):
        with pytest.raises(Invalid, match="yyy") as seen:
            await Client(transport).get(ConfigMap, "x", "default")
    assert seen.value.details is not None
    assert seen.value.details.name == "x"


def test_other_errors_are_left_to_the_server() -> None:
    assert reply_for(KeyError("bug")) is None


async def test_server_that_is_not_there_is_retriable(tmp_path: Path) -> None:
    async with GrpcTransport(config(f"unix:{tmp_path}/none")) as transport:
        with pytest.raises(ServiceUnavailable) as seen:
            await Client(transport).get(ConfigMap, "x", "default")
    assert is_retriable(seen.value)


async def test_restarted_server_is_found_again(fake: FakeServer, tmp_path: Path) -> None:
    fake.seed(config_map("a"))
    bind = f"unix:{tmp_path}/s"
    async with GrpcTransport(config(bind)) as transport:
        client = Client(transport)
        async with make_server(Bridge(fake), bind):
            start = (await client.list(ConfigMap)).resource_version
            watch = client.watch(ConfigMap, resource_version=start)
            waiting = asyncio.ensure_future(_first_error(watch))
            await asyncio.sleep(0.02)
        assert isinstance(await asyncio.wait_for(waiting, 5), ServiceUnavailable)
        async with make_server(Bridge(fake), bind), asyncio.timeout(5):
            while True:
                try:
                    assert len(await client.list(ConfigMap)) == 1
                    break
                except ServiceUnavailable:
                    await asyncio.sleep(0.02)


async def _first_error(watch: AsyncIterable[object]) -> APIError | None:
    try:
        async for _ in watch:
            pass
    except APIError as err:
        return err
    return None


async def test_watch_over_grpc_delivers_and_is_given_up_when_left(fake: FakeServer, tmp_path: Path) -> None:
    async with (
        make_server(Bridge(fake), f"unix:{tmp_path}/s") as server,
        GrpcTransport(config(server.address)) as transport,
    ):
        client = Client(transport)
        start = (await client.list(ConfigMap)).resource_version
        await client.create(config_map("a"))
        async with (
            asyncio.timeout(5),
            aclosing(client.watch(ConfigMap, resource_version=start)) as batches,
        ):
            batch = await anext(batches)
        assert [event.object.metadata.name for event in batch] == ["a"]


async def test_call_has_a_time_limit(tmp_path: Path) -> None:
    class Slow(FakeServer):
        async def unary(self, service: str, method: str, request: bytes, *, timeout_s: float = 30) -> bytes:
            await asyncio.Event().wait()
            return b""

    slow = Slow(SystemClock())
    async with (
        make_server(Bridge(slow), f"unix:{tmp_path}/s") as server,
        GrpcTransport(config(server.address)) as transport,
    ):
        for road in (transport, InProcessTransport(slow)):
            with pytest.raises(Timeout):
                await Client(road, timeout_s=0.02).get(ConfigMap, "x", "default")


async def test_cancelled_call_stays_cancelled(tmp_path: Path) -> None:
    class Slow(FakeServer):
        async def unary(self, service: str, method: str, request: bytes, *, timeout_s: float = 30) -> bytes:
            await asyncio.Event().wait()
            return b""

    async with (
        make_server(Bridge(Slow(SystemClock())), f"unix:{tmp_path}/s") as server,
        GrpcTransport(config(server.address)) as transport,
    ):
        call = asyncio.ensure_future(Client(transport).get(ConfigMap, "x", "default"))
        await asyncio.sleep(0.02)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_call_under_a_closed_transport_is_unavailable(tmp_path: Path) -> None:
    class Slow(FakeServer):
        async def unary(self, service: str, method: str, request: bytes, *, timeout_s: float = 30) -> bytes:
            await asyncio.Event().wait()
            return b""

    async with make_server(Bridge(Slow(SystemClock())), f"unix:{tmp_path}/s") as server:
        transport = GrpcTransport(config(server.address))
        call = asyncio.ensure_future(Client(transport).get(ConfigMap, "x", "default"))
        await asyncio.sleep(0.02)
        await transport.close()
        another = asyncio.ensure_future(Client(transport).get(ConfigMap, "x", "default"))
        await asyncio.sleep(0)
        with pytest.raises(ServiceUnavailable):
            await asyncio.wait_for(call, 5)
        await transport.close()
        with pytest.raises(ServiceUnavailable):
            await asyncio.wait_for(another, 5)


async def test_mutual_tls_and_a_token_that_rotates(fake: FakeServer, tmp_path: Path) -> None:
    authority = CertificateAuthority.create("kubernetes")
    authority.issue("kube-apiserver", sans=("127.0.0.1",), server=True).write(tmp_path / "s.crt", tmp_path / "s.key")
    (tmp_path / "ca.crt").write_bytes(authority.cert_pem)
    admin = authority.issue("admin", organizations=("system:masters",), client=True)
    token = tmp_path / "token"
    token.write_text("first\n")
    bridge = Bridge(fake)
    files = TLSFiles(tmp_path / "s.crt", tmp_path / "s.key", tmp_path / "ca.crt")
    async with make_server(bridge, "127.0.0.1:0", files) as server:
        settings = config(
            server.address,
            ca_pem=authority.cert_pem,
            cert_pem=admin.cert_pem,
            key_pem=admin.key_pem,
            token_file=token,
        )
        async with GrpcTransport(settings) as transport:
            client = Client(transport)
            await client.list(ConfigMap)
            token.write_text("the second\n")
            await client.list(ConfigMap)
    assert bridge.authorization == ["Bearer first", "Bearer the second"]


def test_unverified_server_is_refused() -> None:
    with pytest.raises(KubeconfigError, match="can't skip verification"):
        GrpcTransport(config("127.0.0.1:1", insecure_skip_tls_verify=True))


async def test_missing_token_file_says_so(tmp_path: Path) -> None:
    async with GrpcTransport(config("127.0.0.1:1", token_file=tmp_path / "none")) as transport:
        with pytest.raises(Unauthorized, match="cannot read token file"):
            await Client(transport).list(ConfigMap)


async def test_fault_of_a_server_in_process_is_an_internal_error(fake: FakeServer) -> None:
    fake.fail("Get", ConfigMap, KeyError("bug"))
    with pytest.raises(InternalError, match="bug"):
        await Client(InProcessTransport(fake)).get(ConfigMap, "x", "default")


async def test_fenced_transport_reads_and_does_not_write(fake: FakeServer) -> None:
    leading = True
    client = Client(FencedTransport(InProcessTransport(fake), lambda: leading))
    await client.create(config_map("a"))
    leading = False
    assert len(await client.list(ConfigMap)) == 1
    with pytest.raises(ServiceUnavailable, match="no longer the leader"):
        await client.delete(ConfigMap, "a", "default")
    assert len(await client.list(ConfigMap)) == 1
