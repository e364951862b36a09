"""Paths that are no resources: index, version, health, metrics, discovery, OpenAPI, keys of service accounts.

One table, path to handler. Others add to it before the server starts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from tiphys_apimachinery.errors import MethodNotAllowed, NotFound
from tiphys_apiserver.rest.exchange import Answer, Exchange
from tiphys_apiserver.rest.version import version_document
from tiphys_component.health import Health, Verdict
from tiphys_component.metrics import Registry

Handler = Callable[[Exchange], Awaitable[Answer]]
# Answers a path of discovery or OpenAPI, with the table's own handler at hand.
Overlay = Callable[[Exchange, Handler], Awaitable[Answer]]
_OVERLAID = ("/apis", "/openapi/v3")
_TEXT = "text/plain; charset=utf-8"
_METRICS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class PlainPaths:
    """Exact paths, and prefixes for what lies under them; the longest prefix wins."""

    def __init__(self, overlay: Overlay | None = None) -> None:
        self._overlay = overlay
        self._exact: dict[str, Handler] = {}
        self._under: dict[str, Handler] = {}
        self._hidden: set[str] = set()

    def add(self, path: str, handler: Handler, *, listed: bool = True) -> None:
        """Serve a path. Raises ValueError if it is taken."""
        if path in self._exact:
            raise ValueError(f"path {path} is served already")
        self._exact[path] = handler
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
        handler = self._exact.get(path)
        if handler is None and path.endswith("/") and path != "/":
            handler = self._exact.get(path.rstrip("/"))
        if handler is None:
            for prefix in sorted(self._under, key=len, reverse=True):
                if path.startswith(prefix):
                    handler = self._under[prefix]
                    break
            else:
                raise NotFound.of_path()
        if exchange.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"the path {path} can only be read")
        return await handler(exchange)


def add_basic_paths(paths: PlainPaths, health: Health, metrics: Registry) -> None:
    """Index, version, health and metrics."""

    async def index(_exchange: Exchange) -> Answer:
        return json_answer({"paths": paths.listed()})

    async def version(_exchange: Exchange) -> Answer:
        return Answer(200, orjson.dumps(version_document(), option=orjson.OPT_INDENT_2))

    async def render(_exchange: Exchange) -> Answer:
        return Answer(200, metrics.render(), _METRICS_TEXT)

    paths.add("/", index, listed=False)
    paths.add("/version", version)
    paths.add("/metrics", render)
    paths.add("/healthz/ping", _ping)
    for name, ask in (("healthz", health.live), ("livez", health.live), ("readyz", health.ready)):
        paths.add(f"/{name}", _health_handler(name, ask))
        paths.add_under(f"/{name}/", _single_check_handler(name, ask))


async def _ping(_exchange: Exchange) -> Answer:
    return Answer(200, b"ok", _TEXT)


def _health_handler(name: str, ask: Callable[[], Awaitable[list[Verdict]]]) -> Handler:
    async def handle(exchange: Exchange) -> Answer:
        left_out = {value for key, value in exchange.query.items() if key == "exclude"}
        verdicts = [verdict for verdict in await ask() if verdict.name not in left_out]
        failed = [verdict for verdict in verdicts if verdict.problem]
        if not failed and "verbose" not in exchange.query:
            return Answer(200, b"ok", _TEXT, [("X-Content-Type-Options", "nosniff")])
        # The reason is for the log: whoever may ask for health need not be told what fails inside.
        lines = [f"[-]{v.name} failed: {v.problem}" if v.problem else f"[+]{v.name} ok" for v in verdicts]
        lines.append(f"{name} check {'failed' if failed else 'passed'}")
        return Answer(500 if failed else 200, ("\n".join(lines) + "\n").encode(), _TEXT)

    return handle


def _single_check_handler(name: str, ask: Callable[[], Awaitable[list[Verdict]]]) -> Handler:
    async def handle(exchange: Exchange) -> Answer:
        wanted = exchange.path.removeprefix(f"/{name}/")
        for verdict in await ask():
            if verdict.name == wanted:
                if verdict.problem:
                    return Answer(500, f"{verdict.name} failed: {verdict.problem}\n".encode(), _TEXT)
                return Answer(200, b"ok", _TEXT)
        raise NotFound.of_path()

    return handle


def json_answer(document: Mapping[str, Any]) -> Answer:
    """A JSON document."""
    return Answer(200, orjson.dumps(document))
