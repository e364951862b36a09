"""The header blocks of SPDY/3: name and value pairs, compressed with a dictionary that both sides know.

The compressor lives as long as the connection: each block continues the stream of the one before, so blocks must be
coded in the order in which they travel.
Source: SPDY protocol draft 3, section 2.6.10.
"""

import struct
import zlib
from collections.abc import Mapping

_WORDS = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
]
_MORE_WORDS = ["200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"]
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _dictionary() -> bytes:
    words = (word.encode("ascii") for word in (*_WORDS, *_MORE_WORDS))
    return b"".join(struct.pack(">I", len(word)) + word for word in words) + _TAIL.encode("ascii")


DICTIONARY = _dictionary()
MAX_BLOCK_BYTES = 1 << 20


class HeaderError(ValueError):
    """A header block that can't be read."""


class HeaderEncoder:
    """Compresses the header blocks of one direction of one connection."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(9, zlib.DEFLATED, 15, 8, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)

    def encode(self, headers: Mapping[str, str]) -> bytes:
        """The compressed block; names are lower-cased, as the protocol demands."""
        parts = [struct.pack(">I", len(headers))]
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                parts.append(struct.pack(">I", len(text)))
                parts.append(text)
        return self._zlib.compress(b"".join(parts)) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


class HeaderDecoder:
    """Reads the header blocks of one direction of one connection."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)

    def decode(self, block: bytes) -> dict[str, str]:
        """The headers by lower-case name; values of a repeated name are joined with NUL.

        Raises HeaderError if the block is damaged or larger than MAX_BLOCK_BYTES when unpacked.
        """
        try:
            raw = self._zlib.decompress(block, MAX_BLOCK_BYTES)
        except zlib.error as err:
            raise HeaderError(f"header block can't be unpacked: {err}") from err
        if self._zlib.unconsumed_tail:
            raise HeaderError(f"header block unpacks to more than {MAX_BLOCK_BYTES} bytes")
        try:
            return _parse_pairs(raw)
        except (struct.error, UnicodeDecodeError) as err:
            raise HeaderError(f"header block is malformed: {err}") from err


def _parse_pairs(raw: bytes) -> dict[str, str]:
    if not raw:
        return {}
    (count,) = struct.unpack_from(">I", raw)
    at, headers = 4, {}
    for _ in range(count):
        name, at = _parse_text(raw, at)
        value, at = _parse_text(raw, at)
        headers[name.lower()] = value
    return headers


def _parse_text(raw: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">I", raw, at)
    end = at + 4 + length
    if end > len(raw):
        raise HeaderError(f"header text of {length} bytes runs past the block")
    return raw[at + 4 : end].decode(), end
