"""A document of another server, read whole."""

from __future__ import annotations

from dataclasses import dataclass

from tiphys_apiserver.rest.forward import parse_head, read_body, read_head
from tiphys_apiserver.rest.tunnel import Target, dial

_CONNECT_TIMEOUT_S = 5.0
_MAX_DOCUMENT_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Document:
    """An answer read whole."""

    status: int
    content_type: str
    body: bytes


async def fetch(target: Target, accept: str = "application/json") -> Document:
    """GET on a connection of its own; the caller limits the time.

    Raises ServiceUnavailable where nobody answers, IncompleteReadError, OSError, and ValueError for an answer that is
    too large.
    """
    reader, writer = await dial(target, _CONNECT_TIMEOUT_S)
    try:
        lines = [f"GET {target.path} HTTP/1.1", f"Host: {target.host}:{target.port}", f"Accept: {accept}"]
        lines += [f"{name}: {value}" for name, value in target.headers]
        writer.write(("\r\n".join([*lines, "Connection: close"]) + "\r\n\r\n").encode("latin-1", "replace"))
        status, pairs = parse_head(await read_head(reader, target))
        body = bytearray()
        async for piece in read_body(reader, pairs):
            body += piece
            if len(body) > _MAX_DOCUMENT_BYTES:
                raise ValueError(f"the answer is larger than {_MAX_DOCUMENT_BYTES} bytes")
        kind = next((value for name, value in pairs if name.lower() == "content-type"), "application/json")
        return Document(status, kind, bytes(body))
    finally:
        writer.close()
