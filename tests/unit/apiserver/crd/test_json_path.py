"""The simple JSON paths of definitions."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys_apiserver.crd import json_path

_OBJECT: dict[str, Any] = {
    "metadata": {"annotations": {"example.com/a": "x"}},
    "spec": {"names": [{"a": "first"}, {"a": "second"}], "replicas": 3},
    "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Old", "status": "False"}]},
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param(".spec.replicas", [3], id="members"),
        pytest.param("{.spec.replicas}", [3], id="in braces"),
        pytest.param(".spec.names[0].a", ["first"], id="index"),
        pytest.param(".spec.names[-1].a", ["second"], id="index from the end"),
        pytest.param(".spec.names[*].a", ["first", "second"], id="every item"),
        pytest.param(".spec.names[7].a", [], id="index beyond the end"),
        pytest.param('.status.conditions[?(@.type=="Ready")].status', ["True"], id="filter"),
        pytest.param(".status.conditions[?(@.type!='Ready')].status", ["False"], id="filter for others"),
        pytest.param(r".metadata.annotations.example\.com/a", ["x"], id="escaped dot"),
        pytest.param(".metadata.annotations['example.com/a']", ["x"], id="quoted key"),
        pytest.param(".spec.absent.more", [], id="absent member"),
        pytest.param(".spec.replicas.more", [], id="below a number"),
    ],
)
def test_path_leads_to_values(path: str, expected: list[Any]) -> None:
    assert list(json_path.find(json_path.parse(path), _OBJECT)) == expected


@pytest.mark.parametrize("path", ["", "spec.a", ".spec[", ".spec..a", ".a[?(@.b)]", "$.a"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(json_path.BadPath):
        json_path.parse(path)


def test_put_makes_the_objects_on_the_way() -> None:
    value: dict[str, Any] = {"a": 1}
    json_path.put(("spec", "replicas"), value, 5)
    assert value == {"a": 1, "spec": {"replicas": 5}}
