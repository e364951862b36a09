"""TLS settings that follow their files."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tiphys_component import tls
from tiphys_component.app import StartupError
from tiphys_component.tls import CertificateAuthority, ClientAuth, TLSFiles, identity

CA = CertificateAuthority.create("kubernetes")
OTHER_CA = CertificateAuthority.create("stranger")


@pytest.fixture
def files(tmp_path: Path) -> TLSFiles:
    made = TLSFiles(cert=tmp_path / "tls.crt", key=tmp_path / "tls.key", ca=tmp_path / "ca.crt")
    tls.write_file(tmp_path / "ca.crt", CA.cert_pem, mode=0o644)
    _renew(made, "first")
    return made


def _renew(files: TLSFiles, name: str) -> None:
    assert files.cert is not None
    assert files.key is not None
    CA.issue(name, sans=("127.0.0.1",), server=True).write(files.cert, files.key)


def client_files(folder: Path, authority: CertificateAuthority, name: str) -> TLSFiles:
    made = TLSFiles(folder / f"{name}.crt", folder / f"{name}.key", folder / "ca.crt")
    assert made.cert is not None
    assert made.key is not None
    authority.issue(name, client=True).write(made.cert, made.key)
    return made


@asynccontextmanager
async def serving(context: ssl.SSLContext, seen: Callable[[object], None]) -> AsyncIterator[int]:
    async def on_connect(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen(writer.get_extra_info("peercert"))
        writer.write(b"hi")
        writer.close()

    server = await asyncio.start_server(on_connect, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def server_name(port: int, context: ssl.SSLContext) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        if await reader.read(2) != b"hi":
            raise ConnectionError("closed by the server")
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return identity(ssl.DER_cert_to_PEM_cert(der).encode()).common_name
    finally:
        writer.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_LOOK_EVERY_S", 0.0)


@pytest.mark.usefixtures("impatient")
async def test_H21_renewed_certificate_is_served_without_restart(files: TLSFiles) -> None:
    client = tls.client_ssl_context(TLSFiles(ca=files.ca))
    async with serving(tls.server_ssl_context(files), lambda _peer: None) as port:
        assert await server_name(port, client) == "first"
        _renew(files, "second")
        assert await server_name(port, client) == "second"


@pytest.mark.usefixtures("impatient")
async def test_half_written_pair_leaves_the_old_one_in_use(files: TLSFiles) -> None:
    client = tls.client_ssl_context(TLSFiles(ca=files.ca))
    assert files.key is not None
    failures: list[bool] = []
    context = tls.server_ssl_context(files, not_reloaded=lambda: failures.append(True))
    async with serving(context, lambda _peer: None) as port:
        assert await server_name(port, client) == "first"
        assert failures == []
        files.key.write_bytes(CA.issue("other", server=True).key_pem)
        assert await server_name(port, client) == "first"
        assert failures == [True]


async def test_optional_client_certificate_is_seen_and_not_required(files: TLSFiles, tmp_path: Path) -> None:
    seen: list[object] = []
    async with serving(tls.server_ssl_context(files), seen.append) as port:
        await server_name(port, tls.client_ssl_context(TLSFiles(ca=files.ca)))
        await server_name(port, tls.client_ssl_context(client_files(tmp_path, CA, "admin")))
    assert seen[0] in (None, {})
    assert "admin" in str(seen[1])


async def test_client_certificate_of_a_stranger_is_refused(files: TLSFiles, tmp_path: Path) -> None:
    seen: list[object] = []
    client = tls.client_ssl_context(client_files(tmp_path, OTHER_CA, "admin"))
    async with serving(tls.server_ssl_context(files), seen.append) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await server_name(port, client)
    assert seen == []


def test_missing_file_is_named(files: TLSFiles) -> None:
    assert files.key is not None
    os.unlink(files.key)
    with pytest.raises(StartupError, match=r"tls\.key"):
        tls.server_ssl_context(files)


def test_grpc_server_never_lets_unverified_clients_in_by_omission(files: TLSFiles) -> None:
    with pytest.raises(StartupError, match="--client-ca-file"):
        tls.grpc_server_credentials(TLSFiles(files.cert, files.key))


def test_grpc_cannot_make_client_certificates_optional(files: TLSFiles) -> None:
    with pytest.raises(ValueError, match="without requiring it"):
        tls.grpc_server_credentials(files, client_auth=ClientAuth.OPTIONAL)
