"""Long lists are made as they are written: the same text as a short one, never whole in memory."""

from __future__ import annotations

import gzip
import tracemalloc
from typing import Any

import orjson
import pytest

from tests.support.pod_cache import key, pod_value
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.codec import json_codec
from tiphys_apiserver.rest.long_list import LongList
from tiphys_apiserver.storage.objects import CachedObject, ObjectFormat

HEAD = b'{"kind":"PodList","items":['


class Writer:
    """The client's side of aiohttp: what was written, and a client that takes everything at once."""

    def __init__(self) -> None:
        self.written = 0
        self.first = b""
        self.last = b""
        self.keep = False
        self.kept: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written += len(data)
        self.first = self.first or data
        self.last = data
        if self.keep:
            self.kept.append(data)

    async def drain(self) -> None:
        return None


class Request:
    """What an answer needs of aiohttp's request."""

    method = "GET"
    keep_alive = True

    def __init__(self, *, keep: bool) -> None:
        self.transport: Any = Writer()
        self.transport.keep = keep
        self.writer = self.transport


class Seat:
    def __init__(self) -> None:
        self.released = 0

    def release(self) -> None:
        self.released += 1


def pods(count: int, size: int = 100) -> list[CachedObject]:
    made = ObjectFormat(Pod, api_version="v1", kind="Pod", dumps=json_codec.dumps)
    return [made.ingest(key(f"p{n}"), pod_value(f"p{n}", labels={"n": "x" * size}), n + 1) for n in range(count)]


def body_of(request: Request) -> bytes:
    """The body behind the head, its chunks put together."""
    rest = b"".join(request.transport.kept).partition(b"\r\n\r\n")[2]
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return body


@pytest.mark.parametrize("count", [0, 1, 64, 65, 1000])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
async def test_A17_list_is_whole_however_it_is_sliced(count: int, packed: bool) -> None:
    answer = LongList(HEAD, pods(count))
    if packed:
        answer.compress()
    request: Any = Request(keep=True)
    await answer.prepare(request)
    body = body_of(request)
    found = orjson.loads(gzip.decompress(body) if packed else body)
    assert [item["metadata"]["name"] for item in found["items"]] == [f"p{n}" for n in range(count)]
    assert request.transport.last == b"0\r\n\r\n"


async def peak_of_writing(items: list[CachedObject]) -> int:
    """Most bytes that were held at once while a list of these was written."""
    request: Any = Request(keep=False)
    tracemalloc.start()
    try:
        await LongList(HEAD, items).prepare(request)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_A17_memory_does_not_grow_with_the_list() -> None:
    items = pods(512, size=500)
    await peak_of_writing(items[:128])
    short, long = await peak_of_writing(items[:128]), await peak_of_writing(items)
    assert long < 1.5 * short


async def test_A49_long_list_holds_its_seats_until_it_is_written() -> None:
    seat = Seat()
    answer = LongList(HEAD, pods(10))
    answer.hold(seat)
    request: Any = Request(keep=False)
    await answer.prepare(request)
    del answer
    assert seat.released == 1


async def test_A49_seats_are_free_when_the_client_went_before_the_first_byte() -> None:
    seat = Seat()
    answer = LongList(HEAD, pods(10))
    answer.hold(seat)
    request: Any = Request(keep=False)
    request.transport = None
    with pytest.raises(ConnectionResetError):
        await answer.prepare(request)
    other = LongList(HEAD, [])
    other.hold(seat)
    del other
    assert seat.released == 2
