"""The server as a process: what it says when it can't start, and how it stops."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.apiserver import RunningServer, options_for, read_reply, running_server, shared_pki
from tiphys_apiserver.main import ApiServer
from tiphys_component.app import StartupError, leaves
from tiphys_component.clock import FakeClock
from tiphys_component.tls import CertificateAuthority

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


async def refusal(**changes: Any) -> StartupError:
    """The StartupError of a server with these options."""
    with pytest.raises((StartupError, ExceptionGroup)) as refused:
        async with asyncio.timeout(10):
            await ApiServer(options_for(shared_pki(), **changes)).run()
    return next(leaf for leaf in leaves(refused.value) if isinstance(leaf, StartupError))


@pytest.mark.parametrize(("option", "flag"), [("secure_port", "--secure-port"), ("grpc_port", "--grpc-port")])
async def test_port_in_use_names_the_flag(option: str, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        error = await refusal(**{option: taken.getsockname()[1]})
    assert flag in error.advice


MISSING = [
    pytest.param({"tls_cert_file": None}, "--tls-cert-file", id="no certificate"),
    pytest.param({"tls_cert_file": Path("/nowhere/tls.crt")}, "/nowhere/tls.crt", id="certificate is not there"),
    pytest.param({"client_ca_file": Path("/nowhere/ca.crt")}, "/nowhere/ca.crt", id="authority is not there"),
    pytest.param({"token_auth_file": Path("/nowhere/tokens")}, "--token-auth-file", id="tokens are not there"),
    pytest.param(
        {"service_account_signing_key_file": Path("/nowhere/sa.key")},
        "--service-account-signing-key-file",
        id="signing key is not there",
    ),
    pytest.param({"store": "sqlite", "store_file": Path("/proc/x/t.db")}, "--store-file", id="store can't be made"),
]


@pytest.mark.parametrize(("changes", "named"), MISSING)
async def test_missing_file_is_named_with_what_to_do(changes: dict[str, Any], named: str) -> None:
    error = await refusal(**changes)
    assert named in str(error)
    assert error.advice


BAD_OPTIONS = [
    pytest.param({"service_node_port_range": "9-1"}, "--service-node-port-range", id="ports"),
    pytest.param({"authorization_mode": ("Magic",)}, "--authorization-mode: Magic", id="mode"),
    pytest.param({"store": "etcd"}, "--store=etcd needs --etcd-servers", id="etcd"),
    pytest.param({"insecure_port": 1, "insecure_bind_address": "0.0.0.0"}, "loopback", id="A6 plain port"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_OPTIONS)
def test_options_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options_for(shared_pki(), **changes)


def test_server_listens_on_the_advertised_address_too() -> None:
    pki = shared_pki()
    assert options_for(pki, advertise_address="198.18.0.1").hosts() == ("127.0.0.1", "198.18.0.1")
    assert options_for(pki, advertise_address="198.18.0.1", bind_address=("0.0.0.0",)).hosts() == ("0.0.0.0",)
    assert options_for(pki, advertise_address="127.0.0.1").hosts() == ("127.0.0.1",)


async def test_A54_request_under_way_is_answered_while_the_server_stops() -> None:
    async with running_server() as server:
        reader, writer = await server.connect()
        body = b'{"metadata":{"name":"late"}}'
        writer.write(
            f"POST {CONFIG_MAPS} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:5]
        )
        await server.http("GET", "/healthz")

        async def finish() -> None:
            writer.write(body[5:])
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 201")

        finishing = asyncio.create_task(finish())
    await finishing
    writer.close()


async def test_stopped_server_leaves_its_data_to_the_next(tmp_path: Path) -> None:
    file = tmp_path / "store" / "t.db"
    async with running_server(store="sqlite", store_file=file) as server:
        made = (await server.http("POST", CONFIG_MAPS, {"metadata": {"name": "a"}})).json()
    async with running_server(store="sqlite", store_file=file) as server:
        assert (await server.http("GET", f"{CONFIG_MAPS}/a")).json() == made
        error = await refusal(store="sqlite", store_file=file)
        assert "--store-file" in error.advice


async def test_A7_certificate_of_a_stranger_is_refused(tmp_path: Path) -> None:
    stranger = CertificateAuthority.create("stranger").issue("admin", organizations=["system:masters"], client=True)
    stranger.write(tmp_path / "x.crt", tmp_path / "x.key")
    async with running_server() as server:
        context = ssl.create_default_context(cafile=str(shared_pki().folder / "ca.crt"))
        context.load_cert_chain(tmp_path / "x.crt", tmp_path / "x.key")

        async def ask() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.api.secure_port, ssl=context)
            try:
                writer.write(b"GET /api/v1/secrets HTTP/1.1\r\nHost: x\r\n\r\n")
                return await reader.readuntil(b"\r\n")
            finally:
                writer.close()

        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await ask()


async def test_A6_plain_port_is_off_and_checks_nothing_when_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    async with running_server(insecure_port=port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /api/v1/secrets HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()


async def test_A54_server_told_to_stop_is_unready_first_and_serves_on_for_its_delay() -> None:
    clock = FakeClock(datetime.now(UTC))
    api = ApiServer(options_for(shared_pki(), shutdown_delay_s=20.0), clock)
    server = RunningServer(api, shared_pki())
    task = asyncio.create_task(api.run())
    async with asyncio.timeout(10):
        await api.ready.wait()
        task.cancel()
        while (await server.http("GET", "/readyz", user=None)).status == 200:
            pass
        reader, writer = await server.connect()
        writer.write(f"GET {CONFIG_MAPS} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        reply = await read_reply(reader)
        # The client is to go elsewhere with its next request.
        assert (reply.status, reply.header("Connection"), await reader.read()) == (200, ["close"], b"")
        writer.close()
        clock.advance(20.0)
        with pytest.raises(asyncio.CancelledError):
            await task
