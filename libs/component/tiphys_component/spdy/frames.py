"""The frames of SPDY/3.1: pure coding between bytes and values.

`FrameReader` takes bytes as they arrive and gives whole frames; `FrameWriter` gives bytes. One pair serves one
connection, because header compression has a state per direction.
Source: SPDY protocol draft 3.1, section 2.2 (framing) and 2.6 (control frames).
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from tiphys_component.spdy.headers import HeaderDecoder, HeaderEncoder

VERSION = 3
FLAG_FIN = 0x01
MAX_FRAME_BYTES = (1 << 24) - 1
MAX_CONTROL_BYTES = 1 << 20


class FrameError(ValueError):
    """Bytes that are no SPDY/3.1 frame; the connection can't go on."""


class FrameType(IntEnum):
    """Control frame types."""

    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class ResetStatus(IntEnum):
    """Why a stream was reset."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    CANCEL = 5
    INTERNAL_ERROR = 6


@dataclass(frozen=True, slots=True)
class SynStream:
    """Opens a stream."""

    stream_id: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class SynReply:
    """Accepts a stream."""

    stream_id: int
    headers: Mapping[str, str] = field(default_factory=dict)
    fin: bool = False


@dataclass(frozen=True, slots=True)
class RstStream:
    """Ends a stream at once, in both directions."""

    stream_id: int
    status: int


@dataclass(frozen=True, slots=True)
class Settings:
    """Connection settings; read and not acted upon."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for an echo of its number."""

    ping_id: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """No new streams after this one."""

    last_stream_id: int
    status: int = 0


@dataclass(frozen=True, slots=True)
class Headers:
    """More headers of an open stream."""

    stream_id: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class WindowUpdate:
    """Lets the peer send so many more bytes on a stream; stream 0 means the connection."""

    stream_id: int
    delta: int


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream; fin closes this direction of it."""

    stream_id: int
    data: bytes
    fin: bool = False


Frame = SynStream | SynReply | RstStream | Settings | Ping | GoAway | Headers | WindowUpdate | Data


class FrameWriter:
    """Encodes the frames of one direction of one connection, in the order they are sent."""

    def __init__(self) -> None:
        self._headers = HeaderEncoder()

    def encode(self, frame: Frame) -> bytes:
        """The frame's bytes. Raises FrameError for data over the 24-bit length."""
        match frame:
            case Data(stream_id, data, fin):
                if len(data) > MAX_FRAME_BYTES:
                    raise FrameError(f"data frame of {len(data)} bytes is over {MAX_FRAME_BYTES}")
                return struct.pack(">II", stream_id, (FLAG_FIN << 24 if fin else 0) | len(data)) + data
            case SynStream(stream_id, headers, fin):
                block = self._headers.encode(headers)
                return _control(FrameType.SYN_STREAM, struct.pack(">IIBB", stream_id, 0, 0, 0) + block, fin=fin)
            case SynReply(stream_id, headers, fin):
                block = self._headers.encode(headers)
                return _control(FrameType.SYN_REPLY, struct.pack(">I", stream_id) + block, fin=fin)
            case Headers(stream_id, headers, fin):
                block = self._headers.encode(headers)
                return _control(FrameType.HEADERS, struct.pack(">I", stream_id) + block, fin=fin)
            case RstStream(stream_id, status):
                return _control(FrameType.RST_STREAM, struct.pack(">II", stream_id, status))
            case Ping(ping_id):
                return _control(FrameType.PING, struct.pack(">I", ping_id))
            case GoAway(last_stream_id, status):
                return _control(FrameType.GOAWAY, struct.pack(">II", last_stream_id, status))
            case WindowUpdate(stream_id, delta):
                return _control(FrameType.WINDOW_UPDATE, struct.pack(">II", stream_id, delta))
            case Settings():
                return _control(FrameType.SETTINGS, struct.pack(">I", 0))


def _control(kind: FrameType, body: bytes, *, fin: bool = False) -> bytes:
    return struct.pack(">HHI", 0x8000 | VERSION, kind, (FLAG_FIN << 24 if fin else 0) | len(body)) + body


class FrameReader:
    """Cuts the bytes of one direction of one connection into frames."""

    def __init__(self) -> None:
        self._headers = HeaderDecoder()
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Takes more bytes and gives each frame that is now whole; unknown control frames are left out.

        Raises FrameError, or HeaderError of a header block; the connection is of no use after that.
        """
        self._buffer += data
        while len(self._buffer) >= 8:
            first, second = struct.unpack_from(">II", self._buffer)
            length, flags = second & 0xFFFFFF, second >> 24
            if first >> 31 and length > MAX_CONTROL_BYTES:
                raise FrameError(f"control frame of {length} bytes is over {MAX_CONTROL_BYTES}")
            if len(self._buffer) < 8 + length:
                return
            body = bytes(memoryview(self._buffer)[8 : 8 + length])
            del self._buffer[: 8 + length]
            if not first >> 31:
                yield Data(first, body, bool(flags & FLAG_FIN))
                continue
            if (first >> 16) & 0x7FFF != VERSION:
                raise FrameError(f"control frame of SPDY version {(first >> 16) & 0x7FFF}, expected {VERSION}")
            frame = self._parse_control(first & 0xFFFF, bool(flags & FLAG_FIN), body)
            if frame is not None:
                yield frame

    def _parse_control(self, kind: int, fin: bool, body: bytes) -> Frame | None:
        try:
            return self._parse_body(kind, fin, body)
        except struct.error as err:
            raise FrameError(f"control frame of type {kind} is cut short: {len(body)} bytes") from err

    def _parse_body(self, kind: int, fin: bool, body: bytes) -> Frame | None:
        if kind == FrameType.SYN_STREAM:
            stream_id, _, _, _ = struct.unpack_from(">IIBB", body)
            return SynStream(stream_id & 0x7FFFFFFF, self._headers.decode(body[10:]), fin)
        if kind == FrameType.SETTINGS:
            return Settings()
        (number,) = struct.unpack_from(">I", body)
        stream_id = number & 0x7FFFFFFF
        if kind == FrameType.SYN_REPLY:
            return SynReply(stream_id, self._headers.decode(body[4:]), fin)
        if kind == FrameType.HEADERS:
            return Headers(stream_id, self._headers.decode(body[4:]), fin)
        if kind == FrameType.PING:
            return Ping(number)
        if kind in (FrameType.RST_STREAM, FrameType.GOAWAY, FrameType.WINDOW_UPDATE):
            (value,) = struct.unpack_from(">I", body, 4)
            shapes: dict[int, type[RstStream | GoAway | WindowUpdate]] = {3: RstStream, 7: GoAway, 9: WindowUpdate}
            return shapes[kind](stream_id, value & 0x7FFFFFFF if kind == FrameType.WINDOW_UPDATE else value)
        return None
