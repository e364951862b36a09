"""Paths that are no resources: index, version, health, metrics, discovery, OpenAPI, keys of service accounts.

One table, path to handler. Others add to it before the server starts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson

from tiphys_apimachinery.errors import MethodNotAllowed, NotFound
from tiphys_apiserver.rest.exchange import Answer, Exchange
from tiphys_apiserver.rest.version import version_document
from tiphys_component.health import Health, Verdict
from tiphys_component.log import get_logger
from tiphys_component.metrics import Registry
from tiphys_component.zpages import FLAGZ, STATUSZ, ZPages

_log = get_logger(__name__)

Handler = Callable[[Exchange], Awaitable[Answer]]
# Answers a path of discovery or OpenAPI, with the table's own handler at hand.
Overlay = Callable[[Exchange, Handler], Awaitable[Answer]]
_OVERLAID = ("/apis", "/openapi/v2", "/openapi/v3")
_TEXT = "text/plain; charset=utf-8"
_METRICS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class PlainPaths:
    """Exact paths, and prefixes for what lies under them; the longest prefix wins."""

    def __init__(self, overlay: Overlay | None = None) -> None:
        self._overlay = overlay
        self._exact: dict[str, Handler] = {}
        self._under: dict[str, Handler] = {}
        self._hidden: set[str] = set()
        self._methods: dict[str, tuple[str, ...]] = {}

    def add(
        self, path: str, handler: Handler, *, listed: bool = True, methods: tuple[str, ...] = ("GET", "HEAD")
    ) -> None:
        """Serve a path. Raises ValueError if it is taken."""
        if path in self._exact:
            raise ValueError(f"path {path} is served already")
        self._exact[path] = handler
        self._methods[path] = methods
        if not listed:
            self._hidden.add(path)

    def add_under(self, prefix: str, handler: Handler) -> None:
        """Serve every path below a prefix, which ends with a slash, unless it has its own handler."""
        self._under[prefix] = handler

    def listed(self) -> list[str]:
        """The paths that the index shows, sorted."""
        return sorted(path for path in self._exact if path not in self._hidden)

    async def serve(self, exchange: Exchange) -> Answer:
        """The answer for a path. Raises NotFound, and MethodNotAllowed for all but GET and HEAD."""
        if self._overlay is not None and exchange.path.startswith(_OVERLAID):
            return await self._overlay(exchange, self._serve)
        return await self._serve(exchange)

    async def _serve(self, exchange: Exchange) -> Answer:
        path = exchange.path
        if path not in self._exact and path.endswith("/") and path != "/":
            path = path.rstrip("/")
        handler = self._exact.get(path)
        if handler is None:
            for prefix in sorted(self._under, key=len, reverse=True):
                if exchange.path.startswith(prefix):
                    handler = self._under[prefix]
                    break
            else:
                raise NotFound.of_path()
        if exchange.method not in self._methods.get(path, ("GET", "HEAD")):
            raise MethodNotAllowed(f"the method {exchange.method} is not allowed on the path {path}")
        return await handler(exchange)


def add_basic_paths(paths: PlainPaths, health: Health, metrics: Registry) -> None:
    """Index, version, health and metrics."""

    async def index(_exchange: Exchange) -> Answer:
        return json_answer({"paths": paths.listed()})

    async def version(_exchange: Exchange) -> Answer:
        return Answer(200, orjson.dumps(version_document(), option=orjson.OPT_INDENT_2))

    async def render(exchange: Exchange) -> Answer:
        return await reset(exchange) if exchange.method == "DELETE" else Answer(200, metrics.render(), _METRICS_TEXT)

    async def reset(_exchange: Exchange) -> Answer:
        metrics.reset()
        return Answer(200, b"metrics reset\n", _TEXT)

    paths.add("/", index, listed=False)
    paths.add("/version", version)
    paths.add("/metrics", render, methods=("GET", "HEAD", "DELETE"))
    # The path of old, which takes any method.
    paths.add("/resetMetrics", reset, methods=("GET", "HEAD", "POST", "PUT", "DELETE"))
    paths.add("/healthz/ping", _ping)
    for name, ask in (("healthz", health.live), ("livez", health.live), ("readyz", health.ready)):
        paths.add(f"/{name}", _health_handler(name, ask))
        paths.add_under(f"/{name}/", _single_check_handler(name, ask))


def add_debug_pages(paths: PlainPaths, pages: ZPages) -> None:
    """/statusz and /flagz."""

    async def statusz(_exchange: Exchange) -> Answer:
        return Answer(200, pages.statusz().encode(), _TEXT)

    async def flagz(_exchange: Exchange) -> Answer:
        return Answer(200, pages.flagz().encode(), _TEXT)

    paths.add(STATUSZ, statusz)
    paths.add(FLAGZ, flagz)


async def _ping(_exchange: Exchange) -> Answer:
    return Answer(200, b"ok", _TEXT)


def _health_handler(name: str, ask: Callable[[], Awaitable[list[Verdict]]]) -> Handler:
    told: set[str] = set()

    async def handle(exchange: Exchange) -> Answer:
        left_out = {value for key, value in parse_qsl(exchange.raw_query) if key == "exclude"}
        verdicts = await ask()
        failed = [verdict for verdict in verdicts if verdict.problem and verdict.name not in left_out]
        for verdict in failed:
            if verdict.name not in told:
                _log.warning("health check failed", check=verdict.name, path=exchange.path, err=verdict.problem)
        told.clear()
        told.update(verdict.name for verdict in failed)
        if not failed and "verbose" not in exchange.query:
            return Answer(200, b"ok", _TEXT, [("X-Content-Type-Options", "nosniff")])
        lines = [_line(verdict, is_left_out=verdict.name in left_out) for verdict in verdicts]
        unknown = sorted(left_out - {verdict.name for verdict in verdicts})
        if unknown:
            names = ",".join(f'"{one}"' for one in unknown)
            lines.append(f"warn: some health checks cannot be excluded: no matches for {names}")
        lines.append(f"{name} check {'failed' if failed else 'passed'}")
        return Answer(500 if failed else 200, ("\n".join(lines) + "\n").encode(), _TEXT)

    return handle


def _line(verdict: Verdict, *, is_left_out: bool) -> str:
    if is_left_out:
        return f"[+]{verdict.name} excluded: ok"
    # The reason is in the log: whoever may ask for health need not be told what fails inside.
    return f"[-]{verdict.name} failed: reason withheld" if verdict.problem else f"[+]{verdict.name} ok"


def _single_check_handler(name: str, ask: Callable[[], Awaitable[list[Verdict]]]) -> Handler:
    async def handle(exchange: Exchange) -> Answer:
        wanted = exchange.path.removeprefix(f"/{name}/")
        for verdict in await ask():
            if verdict.name == wanted:
                if verdict.problem:
                    return Answer(500, b"internal server error: reason withheld\n", _TEXT)
                return Answer(200, b"ok", _TEXT)
        raise NotFound.of_path()

    return handle


def json_answer(document: Mapping[str, Any]) -> Answer:
    """A JSON document."""
    return Answer(200, orjson.dumps(document))
