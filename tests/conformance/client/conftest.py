"""The servers that the Client face is tested against.

A live API server joins by a fixture of its own: it yields a Client, an empty namespace, and a way to break connections.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from tiphys_client.client import Client
from tiphys_client.fake import FakeClient
from tiphys_component.clock import SystemClock


@dataclass(frozen=True)
class Subject:
    """One server under test. break_watches ends every open watch with an error, None where that can't be done."""

    client: Client
    namespace: str
    break_watches: Callable[[], Awaitable[None]] | None = None


@pytest.fixture
async def subject() -> AsyncIterator[Subject]:
    client = FakeClient(SystemClock())

    async def break_watches() -> None:
        client.server.cut_watches()

    yield Subject(client, "default", break_watches)
    await client.close()
