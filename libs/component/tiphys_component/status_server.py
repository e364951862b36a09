"""Metrics, health and pages over HTTP. Apart from metrics, as an HTTP server costs a start more than all else in it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from tiphys_component.app import listen_error
from tiphys_component.health import Health, Verdict
from tiphys_component.metrics import Registry
from tiphys_component.zpages import FLAGZ, STATUSZ, ZPages


@asynccontextmanager
async def listening(
    host: str,
    port: int,
    registry: Registry,
    health: Health,
    *,
    pages: ZPages | None = None,
    tls: ssl.SSLContext | None = None,
    flag: str = "--metrics-bind-address",
) -> AsyncIterator[int]:
    """Serve /metrics, /healthz, /livez, /readyz and the pages while the block runs.

    Yields the port, chosen by the system for 0.

    Raises StartupError, which names the flag, if the address can't be listened on.
    """
    served = status_app(registry, health, pages)
    runner = web.AppRunner(served, access_log=None, handle_signals=False, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls)
        try:
            await site.start()
        except OSError as err:
            raise listen_error(err, f"{host}:{port}", flag) from err
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def serve(
    host: str,
    port: int,
    registry: Registry,
    health: Health,
    *,
    pages: ZPages | None = None,
    tls: ssl.SSLContext | None = None,
    flag: str = "--metrics-bind-address",
) -> None:
    """Serve metrics and health until cancelled; raises as listening does."""
    async with listening(host, port, registry, health, pages=pages, tls=tls, flag=flag):
        await asyncio.get_running_loop().create_future()


def status_app(registry: Registry, health: Health, pages: ZPages | None = None) -> web.Application:
    """The HTTP application itself, to be mounted in a larger one."""

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=registry.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def livez(request: web.Request) -> web.Response:
        return health_response("livez", await health.live(), verbose="verbose" in request.query)

    async def readyz(request: web.Request) -> web.Response:
        return health_response("readyz", await health.ready(), verbose="verbose" in request.query)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", livez)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    if pages is not None:
        _add_pages(app, pages)
    return app


def _add_pages(app: web.Application, pages: ZPages) -> None:
    """Serve /statusz, /flagz, and what pages the service has of its own."""

    def serve(make: Callable[[], str]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(_request: web.Request) -> web.Response:
            return web.Response(text=make())

        return handle

    app.router.add_get(STATUSZ, serve(pages.statusz))
    app.router.add_get(FLAGZ, serve(pages.flagz))
    for path, make in pages.own.items():
        app.router.add_get(path, serve(make))


def health_response(name: str, verdicts: Sequence[Verdict], *, verbose: bool = False) -> web.Response:
    """200 with `ok`, or 500 with a line for each check, in kube-apiserver's form."""
    failed = [verdict for verdict in verdicts if verdict.problem]
    if not failed and not verbose:
        return web.Response(text="ok")
    lines = [f"[-]{v.name} failed: {v.problem}" if v.problem else f"[+]{v.name} ok" for v in verdicts]
    lines.append(f"{name} check {'failed' if failed else 'passed'}")
    return web.Response(text="\n".join(lines) + "\n", status=500 if failed else 200)
