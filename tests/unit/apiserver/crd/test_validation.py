"""What is told of an object that does not fit its schema."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys_apiserver.crd import validation


def _spec(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}}


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        pytest.param(
            {"type": "integer"}, "x", 'a: Invalid value: "x": a in body must be of type integer: "string"', id="type"
        ),
        pytest.param(
            {"type": "integer", "minimum": 1},
            0,
            "a: Invalid value: 0: a in body should be greater than or equal to 1",
            id="minimum",
        ),
        pytest.param(
            {"type": "integer", "maximum": 3, "exclusiveMaximum": True},
            3,
            "a: Invalid value: 3: a in body should be less than 3",
            id="exclusive maximum",
        ),
        pytest.param(
            {"type": "string", "pattern": "^a$"},
            "b",
            "a: Invalid value: \"b\": a in body should match '^a$'",
            id="pattern",
        ),
        pytest.param(
            {"type": "string", "enum": ["x", "y"]},
            "z",
            'a: Unsupported value: "z": supported values: "x", "y"',
            id="enum",
        ),
        pytest.param({"type": "object", "required": ["b"]}, {}, "a.b: Required value", id="required"),
        pytest.param(
            {"type": "string", "maxLength": 1}, "ab", "a: Too long: may not be more than 1 bytes", id="maxLength"
        ),
        pytest.param(
            {"type": "array", "items": {"type": "integer"}, "maxItems": 1},
            [1, 2],
            "a: Too many: 2: must have at most 1 item",
            id="maxItems",
        ),
        pytest.param(
            {"type": "string", "format": "date-time"},
            "soon",
            'a: Invalid value: "soon": a in body must be of type date-time',
            id="format",
        ),
        pytest.param(
            {"type": "object", "oneOf": [{"required": ["b"]}, {"required": ["c"]}]},
            {},
            'a: Invalid value: "object": "a" must validate one and only one schema (oneOf)',
            id="oneOf",
        ),
        pytest.param(
            {"x-kubernetes-int-or-string": True},
            1.5,
            'a: Invalid value: 1.5: a in body must be of type integer,string: "number"',
            id="int or string",
        ),
        pytest.param(
            {"type": "object", "additionalProperties": {"type": "string"}},
            {"b.c/d": 1},
            'a[b.c/d]: Invalid value: 1: a[b.c/d] in body must be of type string: "integer"',
            id="odd name",
        ),
        pytest.param(
            {"type": "object", "x-kubernetes-embedded-resource": True},
            {"kind": "X"},
            "a.apiVersion: Required value",
            id="embedded resource",
        ),
    ],
)
def test_A37_a_fault_is_told_in_the_words_of_kubernetes(schema: dict[str, Any], value: Any, expected: str) -> None:
    validator = validation.compile_schema(_spec(schema))
    assert [str(fault) for fault in validation.check(validator, {"a": value})] == [expected]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        pytest.param({"type": "string", "nullable": True}, None, id="null"),
        pytest.param({"type": "string", "nullable": True, "enum": ["x"]}, None, id="null beside an enum"),
        pytest.param({"x-kubernetes-int-or-string": True}, 1, id="int or string, a number"),
        pytest.param({"x-kubernetes-int-or-string": True}, "1", id="int or string, a text"),
        pytest.param({"type": "number"}, 1, id="a whole number"),
        pytest.param({"type": "string", "format": "unheard"}, "x", id="unknown format"),
        pytest.param({"type": "string", "format": "byte"}, "YQ==", id="byte"),
    ],
)
def test_what_fits_is_let_be(schema: dict[str, Any], value: Any) -> None:
    assert validation.check(validation.compile_schema(_spec(schema)), {"a": value}) == []


def test_a_pattern_that_would_take_for_ever_is_not_compiled() -> None:
    with pytest.raises(validation.BadPattern):
        validation.compile_schema(_spec({"type": "string", "pattern": r"(a)\1"}))
