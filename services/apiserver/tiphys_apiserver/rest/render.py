"""Objects, lists and errors to bytes, in the form that was asked for."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import orjson
from google.protobuf.message import Message

from tiphys.api.meta.v1 import meta_pb2
from tiphys.api.runtime import runtime_pb2
from tiphys_apimachinery.codec import json_codec, proto_codec, table, yaml_codec
from tiphys_apimachinery.errors import APIError
from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.rest.exchange import Answer
from tiphys_apiserver.rest.long_list import LONG, LongList
from tiphys_apiserver.rest.negotiate import JSON_FORMAT, PARTIAL, PARTIAL_LIST, TABLE, Format, Media
from tiphys_apiserver.rest.watch_stream import chunked
from tiphys_apiserver.storage.cacher import CachedList
from tiphys_apiserver.storage.objects import CachedObject, varint
from tiphys_apiserver.storage.watch_event import BOOKMARK, FrameMaker, WatchEvent, json_frame, protobuf_frame
from tiphys_component.clock import Clock
from tiphys_component.proc import to_thread

# Smaller answers are not worth the time. Source: apiserver pkg/endpoints/handlers/responsewriters, 128 KiB, level 1.
GZIP_FROM_BYTES = 128 * 1024
_GZIP_LEVEL = 1
# zlib's number for the gzip format with the largest window.
_GZIP_FORMAT = 31
_GZIP_PIECES = 256
_raw = attrgetter("raw")


def status_answer(error: APIError, media_format: Format = JSON_FORMAT) -> Answer:
    """An error as a Status."""
    status = error.to_status()
    headers = [("Retry-After", str(error.retry_after_s))] if error.retry_after_s else []
    answer = message_answer(status, "v1", "Status", media_format, code=error.code)
    answer.headers += headers
    return answer


def message_answer(obj: Message, api_version: str, kind: str, media_format: Format, *, code: int = 200) -> Answer:
    """A message as it is, in one of the three media."""
    if media_format.media is Media.PROTOBUF:
        body = proto_codec.encode_envelope(api_version, kind, obj.SerializeToString(deterministic=True))
    elif media_format.media is Media.YAML:
        body = yaml_codec.dumps(json_codec.to_json(obj))
    else:
        body = json_codec.dumps(obj)
    return Answer(code, body, media_format.media.value)


def document_answer(document: Any, media_format: Format = JSON_FORMAT, *, code: int = 200) -> Answer:
    """A plain JSON document; YAML where that is asked for."""
    if media_format.media is Media.YAML:
        return Answer(code, yaml_codec.dumps(document), Media.YAML.value)
    return Answer(code, orjson.dumps(document))


class Renderer:
    """Writes objects of resources."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def cached(self, served: Served, obj: CachedObject, media_format: Format, include: str) -> Answer:
        """An object of the cache: its bytes as they are, if that is what was asked for."""
        if not media_format.as_kind:
            if media_format.media is Media.JSON:
                return Answer(200, obj.json())
            if media_format.media is Media.PROTOBUF:
                return Answer(200, obj.enveloped(), Media.PROTOBUF.value)
        return self.object(served.info, obj.message(), media_format, include)

    def written(self, served: Served, obj: Any, media_format: Format, include: str, *, code: int = 200) -> Answer:
        """An object as a write has left it."""
        if media_format.media is Media.JSON and not media_format.as_kind:
            return Answer(code, served.format.dumps(obj))
        return self.object(served.info, obj, media_format, include, code=code)

    def object(
        self, info: ResourceInfo, obj: Any, media_format: Format, include: str = "", *, code: int = 200
    ) -> Answer:
        """A message of a resource in any form."""
        if media_format.as_kind == TABLE:
            return document_answer(self._table(info, [obj], media_format, include), media_format, code=code)
        if media_format.as_kind == PARTIAL:
            partial = meta_pb2.PartialObjectMetadata(metadata=obj.metadata)
            return message_answer(partial, "meta.k8s.io/v1", PARTIAL, media_format, code=code)
        return message_answer(obj, info.api_version, info.kind, media_format, code=code)

    def messages(self, info: ResourceInfo, objects: Sequence[Any], media_format: Format, include: str = "") -> Answer:
        """A list of messages that are in no cache."""
        if media_format.as_kind == TABLE:
            return document_answer(self._table(info, objects, media_format, include), media_format)
        if info.list_message is None:
            document: dict[str, Any] = {"kind": info.list_kind, "apiVersion": info.api_version, "metadata": {}}
            document["items"] = [json_codec.to_json(obj) for obj in objects]
            return document_answer(document, Format(media_format.media))
        made: Any = info.list_message()
        made.metadata.SetInParent()
        made.items.extend(objects)
        return message_answer(made, info.api_version, info.list_kind, Format(media_format.media))

    def _table(self, info: ResourceInfo, objects: Sequence[Any], media_format: Format, include: str) -> dict[str, Any]:
        made: dict[str, Any] = table.table_for(info, objects, self._clock.now(), include or "Metadata")
        made["apiVersion"] = f"meta.k8s.io/{media_format.as_version}"
        return made

    def list(self, served: Served, page: CachedList, media_format: Format, include: str) -> Answer:
        """A page of objects: bytes made once a version, put behind each other."""
        info = served.info
        if media_format.as_kind == TABLE:
            document = self._table(info, [obj.message() for obj in page.items], media_format, include)
            document["metadata"] = _list_metadata(page)
            return document_answer(document, media_format)
        if media_format.as_kind in (PARTIAL, PARTIAL_LIST):
            return self._partial_list(page, media_format)
        if media_format.media is Media.PROTOBUF:
            return _protobuf_list(info.api_version, info.list_kind, page)
        head = orjson.dumps({"kind": info.list_kind, "apiVersion": info.api_version, "metadata": _list_metadata(page)})
        if media_format.media is Media.YAML:
            document = {**orjson.loads(head), "items": [orjson.loads(obj.json()) for obj in page.items]}
            return document_answer(document, media_format)
        if len(page.items) >= LONG:
            return LongList(head[:-1] + b',"items":[', page.items)
        pieces = [head[:-1], b',"items":[']
        for obj in page.items:
            pieces.append(obj.json())
            pieces.append(b",")
        if page.items:
            pieces.pop()
        pieces.append(b"]}\n")
        return Answer(200, pieces)

    def _partial_list(self, page: CachedList, media_format: Format) -> Answer:
        made = meta_pb2.PartialObjectMetadataList()
        made.metadata.CopyFrom(list_meta(page))
        for obj in page.items:
            made.items.add().metadata.CopyFrom(obj.message().metadata)
        return message_answer(made, "meta.k8s.io/v1", PARTIAL_LIST, media_format)

    def frame_maker(self, served: Served, media_format: Format, include: str) -> FrameMaker:
        """What makes the frames of a watch, already as chunks; one for all watchers that ask for the same."""
        key = (media_format, include)
        maker: FrameMaker | None = served.frames.get(key)
        if maker is None:
            maker = served.frames[key] = chunked(_viewing(served, self._new_maker(served, media_format, include)))
        return maker

    def _new_maker(self, served: Served, media_format: Format, include: str) -> FrameMaker:
        if not media_format.as_kind:
            return protobuf_frame if media_format.media is Media.PROTOBUF else json_frame
        if media_format.as_kind == TABLE:

            def table_object(event: WatchEvent) -> bytes:
                made = self._table(served.info, [event.object.message()], media_format, include)
                if event.type == BOOKMARK:
                    made["rows"] = []
                    made["metadata"] = {"resourceVersion": event.object.resource_version}
                return orjson.dumps(made)

            return _json_maker(table_object)
        return _partial_maker(media_format.media)


def _viewing(served: Served, maker: FrameMaker) -> FrameMaker:
    """A maker of frames that shows events in the served version."""
    if served.converter is None:
        return maker

    def make(event: WatchEvent) -> bytes:
        return maker(WatchEvent(event.type, served.view(event.object), event.revision))

    return make


def _json_maker(write: Callable[[WatchEvent], bytes]) -> FrameMaker:
    def make(event: WatchEvent) -> bytes:
        return b'{"type":"%b","object":%b}\n' % (event.type.encode(), write(event))

    return make


def _partial_maker(media: Media) -> FrameMaker:
    if media is Media.PROTOBUF:

        def make(event: WatchEvent) -> bytes:
            partial = meta_pb2.PartialObjectMetadata(metadata=event.object.message().metadata)
            body = proto_codec.encode_envelope("meta.k8s.io/v1", PARTIAL, partial.SerializeToString())
            framed: Any = meta_pb2.WatchEvent(type=event.type)
            framed.object.raw = body
            data = framed.SerializeToString()
            return len(data).to_bytes(4, "big") + bytes(data)

        return make
    return _json_maker(
        lambda event: json_codec.dumps(meta_pb2.PartialObjectMetadata(metadata=event.object.message().metadata))
    )


def list_meta(page: CachedList) -> meta_pb2.ListMeta:
    """ListMeta of a page."""
    made = meta_pb2.ListMeta(resourceVersion=str(page.revision))
    if page.continue_token:
        setattr(made, "continue", page.continue_token)
        if page.remaining is not None:
            made.remainingItemCount = page.remaining
    return made


def _list_metadata(page: CachedList) -> dict[str, Any]:
    metadata: dict[str, Any] = {"resourceVersion": str(page.revision)}
    if page.continue_token:
        metadata["continue"] = page.continue_token
        if page.remaining is not None:
            metadata["remainingItemCount"] = page.remaining
    return metadata


def list_raw(page: CachedList) -> tuple[list[bytes], int, int]:
    """A page in the wire form of every list message, metadata and then the items.

    In pieces, how long they are together, and how long the longest is.
    """
    metadata = list_meta(page).SerializeToString()
    start = b"".join((b"\x0a", varint(len(metadata)), metadata))
    raws = list(map(_raw, page.items))
    sizes = list(map(len, raws))
    heads = list(map(_item_head, sizes))
    # Heads and objects in turn, put there by C: a loop that appends each takes three times as long.
    pieces = [start] * (2 * len(raws) + 1)
    pieces[1::2] = heads
    pieces[2::2] = raws
    return pieces, len(start) + sum(map(len, heads)) + sum(sizes), max(len(start), max(sizes, default=0))


@lru_cache(maxsize=4096)
def _item_head(size: int) -> bytes:
    """What stands before an item; the objects of a list are of few sizes."""
    return b"\x12" + varint(size)


def _protobuf_list(api_version: str, kind: str, page: CachedList) -> Answer:
    pieces, size, longest = list_raw(page)
    type_meta = runtime_pb2.TypeMeta(apiVersion=api_version, kind=kind).SerializeToString()
    start = b"".join((proto_codec.MAGIC, b"\x0a", varint(len(type_meta)), type_meta, b"\x12", varint(size)))
    # The two strings at the end are written although they are empty, as Go does.
    end = b"\x1a\x00\x22\x00"
    body = [start, *pieces, end]
    return Answer(200, body, Media.PROTOBUF.value, size=len(start) + size + len(end), longest=longest)


async def compressed(answer: Answer, accept_encoding: str) -> Answer:
    """The answer gzipped, if it is large and the client takes that; the work is done in a thread."""
    if "gzip" not in accept_encoding:
        return answer
    if isinstance(answer, LongList):
        answer.compress()
        return answer
    body = answer.body
    if answer.size < GZIP_FROM_BYTES:
        return answer
    answer.body = await to_thread(_gzip, body)
    answer.headers.append(("Content-Encoding", "gzip"))
    answer.headers.append(("Vary", "Accept-Encoding"))
    return answer


def _gzip(body: bytes | Sequence[bytes]) -> bytes:
    if isinstance(body, bytes):
        return gzip.compress(body, compresslevel=_GZIP_LEVEL, mtime=0)
    # Some pieces at a time: the whole of a list in one would be the largest thing in memory.
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
    packed = [packer.compress(b"".join(body[at : at + _GZIP_PIECES])) for at in range(0, len(body), _GZIP_PIECES)]
    return b"".join([*packed, packer.flush()])
