"""A server with a loop and a thread of its own, for clients that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.apiserver import running_server
from tests.support.ports import free_port


@contextmanager
def server_in_a_thread(**options: Any) -> Iterator[str]:
    """The URL of the plain port of a server that is ready, stopped at the end of the block."""
    port = free_port()
    ready = threading.Event()
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        async with running_server(insecure_port=port, **options):
            over = asyncio.Event()
            stop.append((asyncio.get_running_loop(), over))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="api server")
    thread.start()
    try:
        if not ready.wait(60):
            raise TimeoutError("the server is not ready")
        yield f"http://127.0.0.1:{port}"
    finally:
        for loop, over in stop:
            loop.call_soon_threadsafe(over.set)
        thread.join(30)
