"""Lists as bytes: how long they are is counted once, and no text keeps more memory than it has letters."""

from __future__ import annotations

from typing import Any

from tests.support.pod_cache import key, pod_value
from tiphys.api.core.v1.pod_pb2 import Pod, PodList
from tiphys_apimachinery.codec import json_codec
from tiphys_apiserver.rest.exchange import Answer
from tiphys_apiserver.rest.render import list_raw
from tiphys_apiserver.storage.cacher import CachedList
from tiphys_apiserver.storage.objects import CachedObject, ObjectFormat

FORMAT = ObjectFormat(Pod, api_version="v1", kind="Pod", dumps=json_codec.dumps)


def page(count: int) -> CachedList:
    names = [f"p{number}" + "x" * (number % 200) for number in range(count)]
    return CachedList([FORMAT.ingest(key(name), pod_value(name), 7) for name in names], 9)


def test_pieces_are_as_long_as_is_said() -> None:
    for count in (0, 1, 300):
        pieces, size, longest = list_raw(page(count))
        whole = b"".join(pieces)
        assert (len(whole), max(map(len, pieces))) == (size, longest)
        found: Any = PodList.FromString(whole)
        assert (len(found.items), found.metadata.resourceVersion) == (count, "9")


def test_a_body_of_pieces_is_counted_once() -> None:
    class Pieces(list[bytes]):
        walks = 0

        def __iter__(self) -> Any:
            self.walks += 1
            return super().__iter__()

    pieces = Pieces([b"ab", b"c"])
    answer = Answer(200, pieces)
    assert (answer.size, answer.size, pieces.walks) == (3, 3, 1)
    told = Pieces([b"ab", b"c"])
    assert (Answer(200, told, size=3).size, told.walks) == (3, 0)
    answer.body = b"whole"
    assert answer.size == 5


def test_text_that_is_kept_is_no_part_of_a_larger_piece() -> None:
    """What orjson gives was cut from a piece of twice its size: five thousand pods then hold 28 MB for nothing."""
    made: list[bytes] = []

    def dumps(message: Any) -> bytes:
        made.append(json_codec.dumps(message))
        return made[-1]

    wanted = ObjectFormat(Pod, api_version="v1", kind="Pod", dumps=dumps)
    cached: CachedObject = wanted.ingest(key("p"), pod_value("p"), 7)
    text = cached.json()
    assert text == made[0]
    assert text is not made[0]
    assert cached.json() is text
    assert len(made) == 1
