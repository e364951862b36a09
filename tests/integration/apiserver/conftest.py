"""A running API server for each test of this folder that asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.controller_manager.conftest import config_of
from tests.support.apiserver import RunningServer, running_server
from tiphys_client.client import Client
from tiphys_client.transport import GrpcTransport


@pytest.fixture
async def server() -> AsyncIterator[RunningServer]:
    """A server over a memory store, with the default service account that pods want."""
    async with running_server() as running:
        account = {"metadata": {"name": "default"}}
        await running.http("POST", "/api/v1/namespaces/default/serviceaccounts", account)
        yield running


@pytest.fixture
async def client(server: RunningServer) -> AsyncIterator[Client]:
    """The administrator's, over gRPC."""
    made = Client(GrpcTransport(config_of(server, "admin")))
    yield made
    await made.close()
