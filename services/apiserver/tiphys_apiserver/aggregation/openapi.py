"""Other servers' OpenAPI of version 2 in this server's own: read from each, kept for a minute, put behind.

Source: kube-aggregator pkg/controllers/openapi.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from tiphys_apimachinery.errors import ServiceUnavailable
from tiphys_apiserver.aggregation.client import RemoteClient
from tiphys_apiserver.aggregation.remotes import Remote
from tiphys_apiserver.openapi import merge
from tiphys_apiserver.rest.exchange import Answer
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.proc import to_thread

_PATH: Final = "/openapi/v2"
# Source: kube-aggregator, successfulUpdateDelay.
_KEPT_S: Final = 60.0
_log = get_logger(__name__)

_Server = tuple[tuple[str, str], int, bytes, bool]


@dataclass(slots=True)
class _Kept:
    """A server's document as it was last read, None before it ever was."""

    asked_at: float
    document: dict[str, Any] | None = None


@dataclass(slots=True)
class _Merged:
    """A merged document, and what it was made of."""

    local: bytes
    parts: tuple[int, ...]
    body: bytes


@dataclass(slots=True)
class RemoteOpenAPI:
    """Reads and merges; one question a server a minute, whoever asks."""

    client: RemoteClient
    clock: Clock
    _kept: dict[_Server, _Kept] = field(default_factory=dict)
    _merged: dict[str, _Merged] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def put_into(self, answer: Answer, remotes: Iterable[Remote]) -> Answer:
        """The answer, a document of this server's in either form, with what the others serve."""
        servers: dict[_Server, list[Remote]] = {}
        for remote in remotes:
            servers.setdefault((remote.service, remote.port, remote.ca_bundle, remote.insecure), []).append(remote)
        async with self._lock:
            for gone in self._kept.keys() - servers.keys():
                del self._kept[gone]
            found = [(await self._read(key, served[0]), served) for key, served in servers.items()]
            parts = [(document, served) for document, served in found if document is not None]
            if parts and isinstance(answer.body, bytes):
                answer.body = await self._merge(answer.body, answer.content_type, parts)
        return answer

    async def _read(self, key: _Server, remote: Remote) -> dict[str, Any] | None:
        kept = self._kept.get(key)
        now = self.clock.monotonic()
        if kept is not None and now - kept.asked_at < _KEPT_S:
            return kept.document
        kept = self._kept[key] = _Kept(now, kept.document if kept is not None else None)
        try:
            found = await self.client.read(remote, _PATH)
            document = orjson.loads(found.body) if found.status == 200 else None
        except (ServiceUnavailable, orjson.JSONDecodeError) as err:
            _log.warning("OpenAPI of another server can't be read", service=remote.service, err=str(err))
            return kept.document
        if isinstance(document, dict):
            kept.document = document
        return kept.document

    async def _merge(self, local: bytes, content_type: str, parts: list[tuple[dict[str, Any], list[Remote]]]) -> bytes:
        # Documents are kept, so that they are told apart by where they are.
        identity = tuple(id(document) for document, _ in parts)
        merged = self._merged.get(content_type)
        if merged is None or merged.local is not local or merged.parts != identity:
            body = await to_thread(_merged_body, local, content_type, parts)
            merged = self._merged[content_type] = _Merged(local, identity, body)
        return merged.body


def _merged_body(local: bytes, content_type: str, parts: list[tuple[dict[str, Any], list[Remote]]]) -> bytes:
    is_json = "json" in content_type
    known: dict[str, Any] = dict(orjson.loads(local)["definitions"]) if is_json else merge.definitions_of(local)
    additions = []
    for document, served in parts:
        added = merge.of_places(document, [(remote.group, remote.version) for remote in served], known)
        known |= added["definitions"]
        additions.append(added)
    return merge.append_json(local, additions) if is_json else merge.append_protobuf(local, additions)
