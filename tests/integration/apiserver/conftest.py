"""A running API server for each test of this folder that asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.apiserver import RunningServer, running_server


@pytest.fixture
async def server() -> AsyncIterator[RunningServer]:
    """A server over a memory store, with the default service account that pods want."""
    async with running_server() as running:
        account = {"metadata": {"name": "default"}}
        await running.http("POST", "/api/v1/namespaces/default/serviceaccounts", account)
        yield running
