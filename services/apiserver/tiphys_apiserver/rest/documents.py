"""Entity tags of documents: a client that has discovery or OpenAPI already is told so in a few bytes.

Source: kube-openapi pkg/handler and handler3, and apiserver pkg/endpoints/discovery/aggregated/etag.go.
"""

from __future__ import annotations

from hashlib import sha512

from tiphys_apiserver.rest.exchange import Answer, Exchange
from tiphys_apiserver.rest.plain_paths import PlainPaths

_TAGGED = ("/openapi/", "/api", "/apis")
_OPENAPI_V3 = "/openapi/v3/"
# Tags kept; the documents of a server with many custom groups, and some that have changed since.
_KEPT = 512
_IMMUTABLE = "public, immutable"


class Documents:
    """Serves plain paths, with tags on those whose answers are large and change seldom."""

    def __init__(self, paths: PlainPaths) -> None:
        self._paths = paths
        # A body is the same object each time until it changes, and knows its own hash: looking it up costs nothing.
        self._tags: dict[bytes, str] = {}

    async def serve(self, exchange: Exchange) -> Answer:
        """The answer for a path; 304 where the client names its tag. Raises NotFound, MethodNotAllowed."""
        answer = await self._paths.serve(exchange)
        if not exchange.path.startswith(_TAGGED) or answer.status != 200 or not isinstance(answer.body, bytes):
            return answer
        digest = self._digest(answer.body)
        asked = exchange.query.get("hash", "") if exchange.path.startswith(_OPENAPI_V3) else ""
        if asked and asked != digest:
            # The document has changed since the index was read: the address of the new one has its own hash.
            return Answer(301, b"", answer.content_type, [("Location", f"{exchange.raw_path}?hash={digest}")])
        if asked:
            answer.cache_control = _IMMUTABLE
        tag = f'"{digest}"'
        answer.headers.append(("ETag", tag))
        if names_tag(exchange.headers.get("If-None-Match", ""), tag):
            answer.status, answer.body = 304, b""
        return answer

    def _digest(self, body: bytes) -> str:
        found = self._tags.get(body)
        if found is None:
            if len(self._tags) >= _KEPT:
                self._tags.clear()
            found = self._tags[body] = sha512(body).hexdigest().upper()
        return found


def names_tag(header: str, tag: str) -> bool:
    """Whether an If-None-Match names a tag; weak ones count too."""
    return any(one.strip().removeprefix("W/") in (tag, "*") for one in header.split(","))
