"""Reads new pods whose specs were met before: those of one owner are the same text, so they are read and filled once.

Reading a spec and filling in its defaults is a fifth of what a create costs. A spec is known by its JSON, and what is
kept is the message with its defaults, as bytes; a spec that comes but once is not worth the copy, so it is made at the
second meeting. Nothing but the text decides what it is read as, and no default depends on anything beside the spec.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import orjson
from google.protobuf.message import Message

from tiphys_apimachinery.codec import json_codec

# Longer texts are read each time.
_LONGEST = 64 * 1024


class KnownSpecs:
    """The specs met last, as many as fit in so many bytes. fill adds a pod's defaults. For one loop."""

    def __init__(self, pod: type[Message], fill: Callable[[Message], None], most_bytes: int = 2 << 20) -> None:
        self._pod: Any = pod
        self._fill = fill
        self._most_bytes = most_bytes
        self._bytes = 0
        # By text; None for a spec that was met once.
        self._known: OrderedDict[bytes, bytes | None] = OrderedDict()

    def read(self, document: dict[str, Any], sink: json_codec.FieldSink | None) -> tuple[Any, bool]:
        """The pod in a document that was JSON, and whether its defaults are filled in. Raises BadRequest."""
        spec = document.get("spec")
        text = orjson.dumps(spec) if isinstance(spec, dict) and spec else b""
        if not 0 < len(text) <= _LONGEST:
            return json_codec.from_json(self._pod, document, sink), False
        filled = self._known.get(text)
        if filled is not None:
            self._known.move_to_end(text)
            pod: Any = json_codec.from_json(self._pod, {**document, "spec": {}}, sink)
            pod.spec.MergeFromString(filled)
            return pod, True
        pod = json_codec.from_json(self._pod, document, sink)
        if sink is not None and not sink.unknown:
            # Whoever does not look for unknown members may have sent some, of which others must be told.
            self._meet(text, pod)
        return pod, False

    def _meet(self, text: bytes, pod: Any) -> None:
        filled: bytes | None = None
        size = len(text)
        if text in self._known:
            copy = self._pod(spec=pod.spec)
            self._fill(copy)
            filled = copy.spec.SerializeToString(deterministic=True)
            size = len(filled)
        self._known[text] = filled
        self._bytes += size
        while self._bytes > self._most_bytes:
            oldest, kept = self._known.popitem(last=False)
            self._bytes -= len(oldest) + len(kept or b"")

    def __len__(self) -> int:
        return len(self._known)
