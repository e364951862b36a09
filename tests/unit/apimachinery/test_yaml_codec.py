"""YAML is JSON in another spelling, and no text blows up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.codec import yaml_codec
from tiphys_apimachinery.errors import BadRequest


def test_values_are_those_of_json() -> None:
    text = b"a: 1\nb: [x, 2.5, yes, ~, 2001-01-01, '1', 1e3]\n1: x\ntrue: y\n"
    assert yaml_codec.parse(text) == {
        "a": 1,
        "b": ["x", 2.5, True, None, "2001-01-01", "1", 1000.0],
        "1": "x",
        "true": "y",
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("22:22", "22:22"),
        ("0644", 420),
        ("0o644", 420),
        ("08", 8),
        ("0x1F", 31),
        ("1_000", 1000),
        ("+5", 5),
        (".5", 0.5),
        ("1.", 1.0),
        ("18446744073709551616", 18446744073709551616.0),
        ("1.2.3", "1.2.3"),
        ("off", False),
        ("null", None),
        ("''", ""),
    ],
)
def test_scalars_are_read_as_go_reads_them(text: str, value: Any) -> None:
    found = yaml_codec.parse(f"- {text}".encode())[0]
    assert (found, type(found)) == (value, type(value))


def test_merge_keys_and_aliases_work() -> None:
    text = b"a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n"
    assert yaml_codec.parse(text)["b"] == {"x": 1, "y": 3}


def _bomb() -> bytes:
    lines = [b"a: &a [x,x,x,x,x,x,x,x,x]"]
    for level in range(98, 106):
        lines.append(b"%c: &%c [%s]" % (level, level, b",".join([b"*%c" % (level - 1)] * 9)))
    return b"\n".join(lines)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (_bomb(), "excessive aliasing"),
        (b"a: &x {b: *x}\n", "exceeded max depth"),
        (b"a: [", "line 2: did not find expected node content"),
        (b"\x80", "unacceptable character"),
        (b"a: .inf", "JSON has no number"),
        (b"? [a]\n: b", "only text can be a key"),
        (b"[" * 300 + b"]" * 300, "exceeded max depth"),
        (b"a: !!python/object:os.system x\nb: [", "line"),
    ],
)
def test_bad_text_is_a_bad_request(text: bytes, part: str) -> None:
    with pytest.raises(BadRequest) as caught:
        yaml_codec.parse(text)
    assert part in str(caught.value)


def test_strict_reading_names_unknown_and_repeated_keys() -> None:
    text = b"kind: Pod\nspec:\n  foo: 1\n  nodeName: a\n  nodeName: b\n"
    with pytest.raises(BadRequest) as caught:
        yaml_codec.loads(text, pod_pb2.Pod, strict=True)
    assert 'unknown field "spec.foo", duplicate field "spec.nodeName"' in str(caught.value)
    assert yaml_codec.loads(text, pod_pb2.Pod).spec.nodeName == "b"


def test_documents_of_one_text_are_told_apart() -> None:
    assert yaml_codec.parse_all(b"---\na: 1\n---\n---\nb: |\n  ---x\n") == [{"a": 1}, {"b": "---x\n"}]


def test_text_of_several_lines_keeps_its_lines() -> None:
    assert yaml_codec.dumps({"b": "x\ny\n", "a": "yes"}) == b"a: 'yes'\nb: |\n  x\n  y\n"


def test_text_that_looks_like_a_number_is_quoted() -> None:
    assert yaml_codec.dumps({"a": "0E0"}) == b"a: '0E0'\n"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(_JSON)
def test_what_is_written_reads_back(value: Any) -> None:
    assert yaml_codec.parse(yaml_codec.dumps(value)) == value
