"""Upstream's round-trip data: every field of each kind filled, once as JSON, once as protobuf."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from google.protobuf.message import Message

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.codec import json_codec, proto_codec
from tiphys_apimachinery.scheme import load_default

_GOLDEN = Path(__file__).parents[1] / "contracts" / "golden"
_NAMES = sorted(path.stem for path in _GOLDEN.glob("*.pb"))


def _class_of(name: str) -> type[Message]:
    group, version, kind = name.rsplit(".", 2)
    if kind == "WatchEvent":
        return meta_pb2.WatchEvent
    info = load_default().kind(version if group == "core" else f"{group}/{version}", kind)
    assert info is not None
    return info.message


def test_the_data_is_there() -> None:
    assert len(_NAMES) >= 40


@pytest.mark.parametrize("name", _NAMES)
def test_A44_protobuf_becomes_the_very_json(name: str) -> None:
    api_version, kind, raw = proto_codec.decode_envelope((_GOLDEN / f"{name}.pb").read_bytes())
    wanted = orjson.loads((_GOLDEN / f"{name}.json").read_bytes())
    assert (api_version or None, kind or None) == (wanted.get("apiVersion"), wanted.get("kind"))
    value = json_codec.to_json(_class_of(name).FromString(raw))
    assert value == wanted
    # Text compares the order of members too.
    assert orjson.dumps(value) == orjson.dumps(wanted)


@pytest.mark.parametrize("name", _NAMES)
def test_A44_json_becomes_the_very_bytes(name: str) -> None:
    wanted = (_GOLDEN / f"{name}.pb").read_bytes()
    sink = json_codec.FieldSink()
    message = json_codec.loads((_GOLDEN / f"{name}.json").read_bytes(), _class_of(name), sink=sink)
    assert sink.messages() == []
    assert proto_codec.encode_like_go(message) == wanted


@pytest.mark.parametrize("name", _NAMES)
def test_slow_and_fast_road_agree(name: str) -> None:
    text = (_GOLDEN / f"{name}.json").read_bytes()
    cls = _class_of(name)
    # An unknown member is what sends a text down the slow road.
    unusual = {**orjson.loads(text), "unheardOf": 1}
    assert json_codec.from_json(cls, unusual) == json_codec.loads(text, cls)
