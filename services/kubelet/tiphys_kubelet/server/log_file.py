"""Reading the log files that the runtime writes: one line is `TIME STREAM P|F TEXT`.

P marks a part of a line that was too long; the parts are joined by leaving out their line ends. Pure but for
`tail_offset` and `read_chunk`, which read a file and block.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

BLOCK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What of a log is wanted."""

    follow: bool = False
    tail_lines: int | None = None
    since: datetime | None = None
    timestamps: bool = False
    previous: bool = False
    limit_bytes: int | None = None
    stream: str = "All"


class LogFormatter:
    """Turns whole lines of a log file into what the user asked for; keeps count of the byte limit."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._rest = b""
        self._left = options.limit_bytes
        self._in_part = False

    @property
    def is_full(self) -> bool:
        """The byte limit has been reached."""
        return self._left is not None and self._left <= 0

    def feed(self, data: bytes) -> bytes:
        """The output for more bytes of the file; an unfinished last line waits for the next call."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        out = bytearray()
        for line in lines:
            out += self._format(line)
            if self._left is not None and len(out) >= self._left:
                del out[self._left :]
                break
        if self._left is not None:
            self._left -= len(out)
        return bytes(out)

    def _format(self, line: bytes) -> bytes:
        parts = line.split(b" ", 3)
        if len(parts) < 3:
            return b""
        stamp, stream, tags = parts[:3]
        text = parts[3] if len(parts) > 3 else b""
        if self._options.stream != "All" and stream.decode().capitalize() != self._options.stream:
            return b""
        if self._options.since is not None and parse_time(stamp) < self._options.since:
            return b""
        partial = tags.split(b":", 1)[0] == b"P"
        head = stamp + b" " if self._options.timestamps and not self._in_part else b""
        self._in_part = partial
        return head + text + (b"" if partial else b"\n")


def parse_time(stamp: bytes) -> datetime:
    """The time of a line, cut to microseconds; the epoch for what is no time."""
    text = stamp.decode(errors="replace")
    main, _, fraction = text.partition(".")
    digits = _leading_digits(fraction)
    zone = fraction[len(digits) :]
    try:
        if not fraction:
            return datetime.fromisoformat(text.replace("Z", "+00:00"))
        return datetime.fromisoformat(f"{main}.{digits[:6]:0<6}{zone.replace('Z', '+00:00')}")
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def _leading_digits(text: str) -> str:
    return text[: len(text) - len(text.lstrip("0123456789"))]


def tail_offset(path: Path, lines: int) -> int:
    """Where the last so many lines of a file begin. Blocks."""
    with path.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        if lines <= 0:
            return end
        seen, at = 0, end
        while at > 0:
            size = min(BLOCK_BYTES, at)
            at -= size
            stream.seek(at)
            block = stream.read(size)
            for position in _line_ends(block):
                # The end of the very last line does not begin another one.
                if at + position == end - 1:
                    continue
                seen += 1
                if seen == lines:
                    return at + position + 1
    return 0


def _line_ends(block: bytes) -> Iterator[int]:
    position = block.rfind(b"\n")
    while position >= 0:
        yield position
        position = block.rfind(b"\n", 0, position)


def read_chunk(path: Path, offset: int) -> bytes:
    """The next bytes of a file from an offset; empty at its end, and when it does not exist. Blocks."""
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            return stream.read(BLOCK_BYTES)
    except FileNotFoundError:
        return b""
