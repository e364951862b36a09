"""The servers that the Client face is tested against: the fake in this process, and an API server over mutual TLS."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.support.apiserver import running_server
from tiphys.api.core.v1.service_account_pb2 import ServiceAccount
from tiphys_client.client import Client
from tiphys_client.fake import FakeClient
from tiphys_client.kubeconfig import ClientConfig
from tiphys_client.transport import GrpcTransport
from tiphys_component.clock import SystemClock


@dataclass(frozen=True)
class Subject:
    """One server under test. break_watches ends every open watch with an error."""

    client: Client
    namespace: str
    break_watches: Callable[[], Awaitable[None]]


@pytest.fixture(params=["fake", "apiserver"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    make = {"fake": fake, "apiserver": apiserver}[request.param]
    async with make() as made:
        yield made


@pytest.fixture
async def real_server() -> AsyncIterator[Subject]:
    """The API server alone, for what the fake does not do: it makes no tokens."""
    async with apiserver() as made:
        yield made


@asynccontextmanager
async def fake() -> AsyncIterator[Subject]:
    client = FakeClient(SystemClock())

    async def break_watches() -> None:
        client.server.cut_watches()

    yield Subject(client, "default", break_watches)
    await client.close()


@asynccontextmanager
async def apiserver() -> AsyncIterator[Subject]:
    async with running_server() as server:
        files = server.pki.tls("admin")
        ca, cert, key = [await asyncio.to_thread(path.read_bytes) for path in (files.ca, files.cert, files.key) if path]
        config = ClientConfig(
            server_url=f"https://127.0.0.1:{server.api.secure_port}",
            grpc_address=f"127.0.0.1:{server.api.grpc_port}",
            ca_pem=ca,
            cert_pem=cert,
            key_pem=key,
        )
        async with GrpcTransport(config) as transport:
            client = Client(transport)
            # Pods want the service account that a controller would have made.
            account = ServiceAccount()
            account.metadata.namespace, account.metadata.name = "default", "default"
            await client.create(account)
            yield Subject(client, "default", transport.close)
