"""A webhook of our own for tests: HTTPS on a free port, with a certificate of the tests' authority.

    async with https_hook(server.pki, answer) as url:
        ...

answer gets the path and the JSON that was sent; what it gives is sent back as JSON, bytes as they are, and an int as
the status of an answer without words.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.support.apiserver import Pki
from tiphys_component.tls import ClientAuth, server_ssl_context

Answer = Callable[[str, Any], Any]


@asynccontextmanager
async def https_hook(pki: Pki, answer: Answer) -> AsyncIterator[str]:
    """The URL of a running webhook."""

    async def serve(request: web.Request) -> web.StreamResponse:
        found = answer(request.path, json.loads(await request.read()))
        if isinstance(found, int):
            return web.Response(status=found)
        return web.Response(body=found) if isinstance(found, bytes) else web.json_response(found)

    application = web.Application(client_max_size=1 << 26)
    application.router.add_post("/{path}", serve)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    tls = server_ssl_context(pki.tls("server"), client_auth=ClientAuth.NONE)
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def ca_bundle(pki: Pki) -> str:
    """The authority as configurations of webhooks have it."""
    return base64.b64encode((pki.folder / "ca.crt").read_bytes()).decode()
