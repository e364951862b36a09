"""What watchers are told. Each event, and each frame of it on the wire, is made once and shared by all watchers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from tiphys_apiserver.storage.objects import CachedObject, varint

ADDED: Final = "ADDED"
MODIFIED: Final = "MODIFIED"
DELETED: Final = "DELETED"
BOOKMARK: Final = "BOOKMARK"
WatchEventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]

# Makes one event's bytes for one kind of connection. Frames of one batch are joined without anything in between.
FrameMaker = Callable[["WatchEvent"], bytes]


class WatchEvent:
    """One event as a watcher sees it; immutable but for the frames it remembers. previous is known of MODIFIED."""

    __slots__ = ("_frames", "object", "previous", "revision", "type")

    def __init__(
        self, event_type: WatchEventType, cached: CachedObject, revision: int, previous: CachedObject | None = None
    ) -> None:
        self.type: WatchEventType = event_type
        self.object = cached
        self.revision = revision
        self.previous = previous
        self._frames: dict[str | FrameMaker, bytes] | None = None

    def frame(self, kind: str | FrameMaker) -> bytes:
        """The event's bytes: json, protobuf, grpc, or what the maker given makes; made once."""
        frames = self._frames
        if frames is None:
            frames = self._frames = {}
        made = frames.get(kind)
        if made is None:
            maker = FRAME_MAKERS[kind] if isinstance(kind, str) else kind
            made = frames[kind] = maker(self)
        return made

    def __repr__(self) -> str:
        return f"<{self.type} {self.object!r}>"


class EventBatch:
    """Events of one turn for all watchers of one selection; ``frame`` joins them once."""

    __slots__ = ("_joined", "events")

    def __init__(self, events: Sequence[WatchEvent]) -> None:
        self.events = events
        self._joined: dict[str | FrameMaker, bytes] | None = None

    def frame(self, kind: str | FrameMaker) -> bytes:
        """All events' bytes, one behind the other: ready for the transport."""
        joined = self._joined
        if joined is None:
            joined = self._joined = {}
        made = joined.get(kind)
        if made is None:
            events = self.events
            made = events[0].frame(kind) if len(events) == 1 else b"".join([event.frame(kind) for event in events])
            joined[kind] = made
        return made


class Change:
    """One change of the store: what was there and what is there now. Either may be None, not both."""

    __slots__ = ("_added", "_deleted", "_modified", "current", "previous", "revision")

    def __init__(self, revision: int, previous: CachedObject | None, current: CachedObject | None) -> None:
        self.revision = revision
        self.previous = previous
        self.current = current
        self._added: WatchEvent | None = None
        self._modified: WatchEvent | None = None
        self._deleted: WatchEvent | None = None

    @property
    def key(self) -> str:
        """The key that changed."""
        seen = self.current or self.previous
        assert seen is not None
        return seen.key

    def seen(self, before: bool, after: bool) -> WatchEvent | None:
        """The event for a watcher whose selector chose the object before, after, or both; None if neither.

        An object that leaves the selection is DELETED with its last chosen content and the revision of the change.
        """
        if after:
            assert self.current is not None
            if before:
                if self._modified is None:
                    self._modified = WatchEvent(MODIFIED, self.current, self.revision, self.previous)
                return self._modified
            if self._added is None:
                self._added = WatchEvent(ADDED, self.current, self.revision)
            return self._added
        if before:
            if self._deleted is None:
                assert self.previous is not None
                self._deleted = WatchEvent(DELETED, self.previous.at_revision(self.revision), self.revision)
            return self._deleted
        return None

    def drop_events(self) -> None:
        """Forget the events and so their frames; they are made anew for a watcher that comes late."""
        self._added = self._modified = self._deleted = None


def json_frame(event: WatchEvent) -> bytes:
    """One line of a JSON watch."""
    return b'{"type":"%b","object":%b}\n' % (event.type.encode(), event.object.json())


_PROTO_TYPES: Final[Mapping[str, bytes]] = {
    name: b"\x0a" + varint(len(name)) + name.encode() for name in (ADDED, MODIFIED, DELETED, BOOKMARK)
}


def protobuf_frame(event: WatchEvent) -> bytes:
    """A frame of stream=watch: length, then meta.v1.WatchEvent with the enveloped object in object.raw."""
    body = event.object.enveloped()
    extension = b"\x0a" + varint(len(body)) + body
    message = b"".join((_PROTO_TYPES[event.type], b"\x12", varint(len(extension)), extension))
    return struct.pack(">I", len(message)) + message


_GRPC_TYPES: Final[Mapping[str, bytes]] = {
    name: bytes((0x08, number)) for number, name in enumerate((ADDED, MODIFIED, DELETED, BOOKMARK), start=1)
}


def grpc_frame(event: WatchEvent) -> bytes:
    """One element of tiphys.apiserver.v1.WatchResponse.events; joined frames are a whole WatchResponse."""
    raw = event.object.raw
    message = b"".join((_GRPC_TYPES[event.type], b"\x12", varint(len(raw)), raw))
    return b"\x0a" + varint(len(message)) + message


FRAME_MAKERS: Final[Mapping[str, FrameMaker]] = {"json": json_frame, "protobuf": protobuf_frame, "grpc": grpc_frame}
