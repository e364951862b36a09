"""The page at /swagger-ui/: every operation of the server, to read and to try, without a download from outside."""

from __future__ import annotations

import asyncio
from functools import cache
from importlib.resources import files

from tiphys_apimachinery.errors import NotFound
from tiphys_apiserver.rest.exchange import Answer, Exchange
from tiphys_apiserver.rest.plain_paths import PlainPaths

_PATH = "/swagger-ui"
# What the page consists of, and nothing else of the package.
_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "index.css": "text/css; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui-standalone-preset.js": "text/javascript; charset=utf-8",
    "swagger-initializer.js": "text/javascript; charset=utf-8",
    "favicon-16x16.png": "image/png",
    "favicon-32x32.png": "image/png",
}
# The package's own names its project's example on the Internet, and a validator there.
_INITIALIZER = b"""window.onload = function () {
  window.ui = SwaggerUIBundle({
    url: "/openapi/v2",
    dom_id: "#swagger-ui",
    deepLinking: true,
    docExpansion: "none",
    defaultModelsExpandDepth: -1,
    validatorUrl: null,
    presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
    layout: "StandaloneLayout",
  });
};
"""
_HEADERS = [
    # Browsers refuse whatever would come from elsewhere.
    ("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
]


def add_swagger_page(paths: PlainPaths) -> None:
    """Serve the page and its parts to whoever may read these paths; its files are read when they are first asked."""

    async def folder(_exchange: Exchange) -> Answer:
        return Answer(301, b"", _TYPES["index.html"], [("Location", f"{_PATH}/")])

    async def page(_exchange: Exchange) -> Answer:
        return await _file("index.html")

    async def part(exchange: Exchange) -> Answer:
        name = exchange.path.removeprefix(f"{_PATH}/")
        if name not in _TYPES:
            raise NotFound.of_path()
        return await _file(name)

    paths.add(_PATH, folder, listed=False)
    paths.add(f"{_PATH}/", page)
    paths.add_under(f"{_PATH}/", part)


async def _file(name: str) -> Answer:
    body = _INITIALIZER if name == "swagger-initializer.js" else await asyncio.to_thread(_read, name)
    return Answer(200, body, _TYPES[name], _HEADERS)


@cache
def _read(name: str) -> bytes:
    # The package keeps one folder, named for the version of the page.
    (folder,) = (files("swagger_ui_bundle") / "vendor").iterdir()
    return (folder / name).read_bytes()
