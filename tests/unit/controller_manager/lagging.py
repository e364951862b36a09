"""A client whose watches tell of each change some time after it happened, as a busy server's do."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from tiphys_client.fake import FakeClient
from tiphys_client.transport import DEFAULT_TIMEOUT_S
from tiphys_component.clock import FakeClock


class LaggingClient(FakeClient):
    """Lags by lag_s on the clock that it is given once there is one; until then it does not."""

    def __init__(self) -> None:
        super().__init__()
        self._road = _LaggingRoad(self.transport)
        self.transport = self._road

    def lag(self, clock: FakeClock, lag_s: float) -> None:
        """From now on every event of every watch comes so much later, in order."""
        self._road.clock, self._road.lag_s = clock, lag_s


class _LaggingRoad:
    def __init__(self, road: Any) -> None:
        self._road = road
        self.clock: FakeClock | None = None
        self.lag_s = 0.0

    async def unary(self, service: str, method: str, request: bytes, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> bytes:
        answer: bytes = await self._road.unary(service, method, request, timeout_s=timeout_s)
        return answer

    async def stream(
        self, service: str, method: str, request: bytes, *, timeout_s: float | None = None
    ) -> AsyncGenerator[bytes]:
        arrived: deque[tuple[float, bytes]] = deque()
        has_more = asyncio.Event()

        async def pump() -> None:
            async with aclosing(self._road.stream(service, method, request, timeout_s=timeout_s)) as replies:
                async for reply in replies:
                    due = self.clock.monotonic() + self.lag_s if self.clock is not None else 0.0
                    arrived.append((due, reply))
                    has_more.set()

        task = asyncio.create_task(pump(), name="lagging watch")
        try:
            while True:
                await has_more.wait()
                has_more.clear()
                while arrived:
                    due, reply = arrived.popleft()
                    if self.clock is not None and due > self.clock.monotonic():
                        await self.clock.sleep(due - self.clock.monotonic())
                    yield reply
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def close(self) -> None:
        await self._road.close()
