"""H21: the serving certificate is replaced under a server that answers: no restart, and no call fails."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from tests.support.apiserver import RunningServer, running_server, shared_pki
from tests.support.promptness import PROMPTLY_S
from tiphys_component import tls
from tiphys_component.tls import CertificateAuthority

MAPS = "/api/v1/namespaces/default/configmaps"


def renew(folder: Path, name: str) -> None:
    """A new serving certificate of the authority that clients trust."""
    pki = shared_pki().folder
    authority = CertificateAuthority.load(pki / "ca.crt", pki / "ca.key")
    made = authority.issue(name, sans=["127.0.0.1", "localhost"], server=True)
    made.write(folder / "server.crt", folder / "server.key")


async def served_name(server: RunningServer) -> str:
    """Whom the certificate names that a new connection is shown."""
    _, writer = await server.connect()
    try:
        connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
        der = connection.getpeercert(binary_form=True)
        assert der is not None
        subject = x509.load_der_x509_certificate(der).subject
        return str(subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)
    finally:
        writer.transport.abort()


async def test_H21_a_replaced_serving_certificate_is_shown_and_no_call_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_LOOK_EVERY_S", 0.0)
    renew(tmp_path, "first")
    files = {"tls_cert_file": tmp_path / "server.crt", "tls_private_key_file": tmp_path / "server.key"}
    async with running_server(**files) as server:
        assert await served_name(server) == "first"
        over = asyncio.Event()
        statuses: list[int] = []

        async def work(worker: int) -> None:
            while not over.is_set():
                body = {"metadata": {"name": f"w{worker}-{len(statuses)}"}}
                statuses.append((await server.http("POST", MAPS, body)).status)
                statuses.append((await server.http("GET", MAPS)).status)

        async with asyncio.timeout(PROMPTLY_S), asyncio.TaskGroup() as group:
            for worker in range(3):
                group.create_task(work(worker))
            for name in ("second", "third"):
                before = len(statuses)
                renew(tmp_path, name)
                while await served_name(server) != name or len(statuses) < before + 10:  # noqa: ASYNC110 - what is waited for is the server's to do
                    await asyncio.sleep(0)
            over.set()
    assert set(statuses) == {200, 201}
