"""Reads JSON documents over HTTPS: an issuer's settings and keys."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from tiphys_apiserver.authentication.oidc import FetchFailed
from tiphys_apiserver.authentication.review_client import read_answer

_TIMEOUT_S = 10.0
_MAX_BYTES = 1024 * 1024


class DocumentFetcher:
    """Gets documents, each on a connection of its own: they are asked for once in an hour."""

    def __init__(self, ca_file: Path | None) -> None:
        """Raises OSError for an authority that can't be read, ssl.SSLError for one that is none."""
        self._tls = ssl.create_default_context(cafile=str(ca_file) if ca_file is not None else None)

    async def get(self, url: str) -> dict[str, Any]:
        """The document. Raises FetchFailed."""
        if not url.startswith("https://"):
            raise FetchFailed(f"{url!r} is no HTTPS URL")
        try:
            async with (
                asyncio.timeout(_TIMEOUT_S),
                aiohttp.ClientSession(trust_env=False) as session,
                session.get(url, ssl=self._tls, allow_redirects=False) as answer,
            ):
                content = await read_answer(answer, _MAX_BYTES)
                if answer.status != 200:
                    raise FetchFailed(f"{url}: HTTP status {answer.status}")
            document = orjson.loads(content)
        except (aiohttp.ClientError, OSError, TimeoutError, orjson.JSONDecodeError) as err:
            raise FetchFailed(f"{url}: {err or type(err).__name__}") from err
        if not isinstance(document, dict):
            raise FetchFailed(f"{url}: it is no JSON object")
        return document
