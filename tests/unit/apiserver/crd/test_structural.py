"""Pruning, defaults and shapes of structural schemas."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys_apiserver.crd import structural


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


_STRING = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "value", "expected", "unknown"),
    [
        pytest.param(_object(a=_STRING), {"a": "x", "b": 1}, {"a": "x"}, ["b"], id="unknown member"),
        pytest.param(
            _object(a={"type": "array", "items": _object(b=_STRING)}),
            {"a": [{"b": "x", "c": 1}]},
            {"a": [{"b": "x"}]},
            ["a[0].c"],
            id="in a list",
        ),
        pytest.param(
            _object(a={"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
            {"a": {"b": {"c": 1}}},
            {"a": {"b": {"c": 1}}},
            [],
            id="preserved",
        ),
        pytest.param(
            _object(
                a={
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "properties": {"b": _object(c=_STRING)},
                }
            ),
            {"a": {"b": {"d": 1}, "e": 1}},
            {"a": {"b": {}, "e": 1}},
            ["a.b.d"],
            id="known members of a preserved object are pruned",
        ),
        pytest.param(
            _object(a={"type": "object", "additionalProperties": _object(b=_STRING)}),
            {"a": {"k": {"b": "x", "c": 1}}},
            {"a": {"k": {"b": "x"}}},
            ["a.k.c"],
            id="values of a map",
        ),
        pytest.param(
            _object(a={**_object(spec=_object()), "x-kubernetes-embedded-resource": True}),
            {"a": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "other": 1}},
            {"a": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}},
            ["a.other"],
            id="embedded resource",
        ),
    ],
)
def test_A37_unknown_members_are_pruned_and_named(
    schema: dict[str, Any], value: Any, expected: Any, unknown: list[str]
) -> None:
    found: list[str] = []
    assert structural.prune(structural.build(schema), value, "", found) == expected
    assert found == unknown


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        pytest.param(_object(a={"type": "integer", "default": 1}), {}, {"a": 1}, id="absent"),
        pytest.param(_object(a={"type": "integer", "default": 1}), {"a": 2}, {"a": 2}, id="given"),
        pytest.param(
            _object(a={"type": "integer", "default": 1}), {"a": None}, {"a": 1}, id="null where it may not be"
        ),
        pytest.param(
            _object(a={"type": "integer", "default": 1, "nullable": True}), {"a": None}, {"a": None}, id="null allowed"
        ),
        pytest.param(_object(a=_STRING), {"a": None}, {}, id="null without default is dropped"),
        pytest.param(
            _object(a={**_object(b={"type": "integer", "default": 2}), "default": {}}), {}, {"a": {"b": 2}}, id="nested"
        ),
        pytest.param(_object(a=_object(b={"type": "integer", "default": 2})), {}, {}, id="parent absent"),
        pytest.param(
            _object(a={"type": "array", "items": _object(b={"type": "integer", "default": 2})}),
            {"a": [{}, {"b": 3}]},
            {"a": [{"b": 2}, {"b": 3}]},
            id="items",
        ),
        pytest.param(
            _object(a={"type": "object", "additionalProperties": _object(b={"type": "integer", "default": 2})}),
            {"a": {"k": {}}},
            {"a": {"k": {"b": 2}}},
            id="values of a map",
        ),
    ],
)
def test_A37_defaults_are_filled_in(schema: dict[str, Any], value: Any, expected: Any) -> None:
    structural.fill(structural.build(schema), value)
    assert value == expected


def test_objects_do_not_share_a_default() -> None:
    node = structural.build(_object(a={"type": "array", "items": _STRING, "default": ["x"]}))
    one: dict[str, Any] = {}
    other: dict[str, Any] = {}
    structural.fill(node, one)
    structural.fill(node, other)
    one["a"].append("y")
    assert other == {"a": ["x"]}


def test_lists_merge_as_the_schema_says() -> None:
    item = {**_object(name=_STRING, protocol={"type": "string", "default": "TCP"}), "required": ["name"]}
    listed = {"type": "array", "items": item}
    keyed = {**listed, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["protocol", "name"]}
    chosen = {"type": "array", "items": _STRING, "x-kubernetes-list-type": "set"}
    shape = structural.shape(structural.build(_object(keyed=keyed, chosen=chosen, whole=listed)))
    assert shape.member("keyed").keys == (("name", None), ("protocol", "TCP"))
    assert shape.member("chosen").is_list
    assert not shape.member("chosen").keys
    assert shape.member("whole").is_leaf
