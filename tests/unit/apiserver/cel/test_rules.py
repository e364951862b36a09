"""Rules of schemas: which are refused when they are written, and what they say along the values of objects."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from tiphys_apimachinery.cel.program import Budget
from tiphys_apiserver.cel.rule_schema import rule_faults
from tiphys_apiserver.cel.rules import build, check
from tiphys_apiserver.cel.typed import converter

SCHEMA: dict[str, Any] = {
    "type": "object",
    "x-kubernetes-validations": [
        {"rule": "self.min <= self.max", "message": "min may not be more than max"},
        {"rule": "!has(self.note) || self.note != ''", "messageExpression": "'note of ' + string(self.min)"},
    ],
    "properties": {
        "min": {"type": "integer"},
        "max": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf", "fieldPath": ""}]},
        "note": {"type": "string"},
        "parts": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
                "x-kubernetes-validations": [
                    {"rule": "self.size == oldSelf.size", "message": "size is fixed", "reason": "FieldValueForbidden"}
                ],
            },
        },
        "tags": {"additionalProperties": {"x-kubernetes-validations": [{"rule": "self.size() < 4"}]}},
    },
}


@pytest.mark.parametrize(
    ("new", "old", "faults"),
    [
        pytest.param({"min": 1, "max": 2}, None, [], id="fine"),
        pytest.param(
            {"min": 3, "max": 2}, None, ['spec: Invalid value: "object": min may not be more than max'], id="message"
        ),
        pytest.param(
            {"min": 1, "max": 2, "note": ""}, None, ['spec: Invalid value: "object": note of 1'], id="computed"
        ),
        pytest.param(
            {"min": 1, "max": 2}, {"min": 1, "max": 3},
            ["spec.max: Invalid value: 2: failed rule: self >= oldSelf"], id="change",
        ),
        pytest.param(
            {"min": 1, "max": 2, "parts": [{"name": "b", "size": 2}, {"name": "a", "size": 9}]},
            {"min": 1, "max": 2, "parts": [{"name": "a", "size": 1}]},
            ["spec.parts[1]: Forbidden: size is fixed"], id="items by key",
        ),
        pytest.param(
            {"min": 1, "max": 2, "tags": {"a": "ok", "b": "long enough"}}, None,
            ['spec.tags[b]: Invalid value: "long enough": failed rule: self.size() < 4'], id="entries",
        ),
        pytest.param({"min": 3, "max": 2}, {"min": 3, "max": 2}, [], id="what stays as it was is let be"),
        pytest.param(
            {"max": 2}, None,
            ['spec: Invalid value: "object": no such key: min evaluating rule: self.min <= self.max'], id="no value",
        ),
    ],
)  # fmt: skip
def test_A38_rules_of_a_schema(new: Any, old: Any, faults: list[str]) -> None:
    tree = build(SCHEMA)
    assert tree is not None
    found = check(tree, new, path="spec") if old is None else check(tree, new, old, path="spec")
    assert [str(fault) for fault in found if "note" not in str(fault) or "note" in "".join(faults)] == faults


def rule(text: str, **more: Any) -> dict[str, Any]:
    return {"x-kubernetes-validations": [{"rule": text, **more}]}


def faults_of(schema: dict[str, Any], new: Any, *old: Any) -> list[str]:
    tree, convert = build(schema), converter(schema) or (lambda value: value)
    assert tree is not None
    return [str(fault) for fault in check(tree, convert(new), *map(convert, old), path="spec")]


STRING = {"type": "string"}
OBJECT = {"type": "object", "properties": {"name": STRING, "count": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("schema", "path", "words"),
    [
        pytest.param(OBJECT | rule("self.name("), ".rule", "Syntax error", id="syntax"),
        pytest.param(OBJECT | rule(" "), ".rule", "rule is not specified", id="empty"),
        pytest.param(OBJECT | rule("self.nmae == 'a'"), ".rule", "undefined field 'nmae'", id="field"),
        pytest.param(OBJECT | rule("self.name == 1"), ".rule", r"'_==_' applied to '\(string, int\)'", id="types"),
        pytest.param(OBJECT | rule("self.name + 1 == 'a'"), ".rule", "no matching overload for '_[+]_'", id="sum"),
        pytest.param(OBJECT | rule("self.count.startsWith('a')"), ".rule", "overload for 'startsWith'", id="method"),
        pytest.param(OBJECT | rule("self.name"), ".rule", "must evaluate to a bool", id="no bool"),
        pytest.param(
            OBJECT | rule("true", messageExpression="self.count"), ".messageExpression", "to a string", id="no text"
        ),
        pytest.param(OBJECT | rule("true", message="a\nb"), ".message", "must not contain line breaks", id="lines"),
        pytest.param(OBJECT | rule("true ||\nfalse"), ".message", "must be specified if rule", id="no message"),
        pytest.param(OBJECT | rule("true", reason="Because"), ".reason", "supported values", id="reason"),
        pytest.param(OBJECT | rule("true", fieldPath=".none"), ".fieldPath", "does not refer to a valid", id="path"),
        pytest.param(OBJECT | rule("true", fieldPath="name"), ".fieldPath", "valid path", id="no path"),
        pytest.param(
            {"type": "array", "maxItems": 3, "items": OBJECT | rule("self.count == oldSelf.count")}, ".rule",
            "uncorrelatable portion", id="items nobody can tell apart",
        ),
        pytest.param(
            {"type": "array", "items": STRING | rule("self.matches('(a|b|c|d)+[e-z]*(f|g)+')")}, ".rule",
            "estimated rule cost exceeds budget by factor of more than 100x", id="cost",
        ),
        pytest.param(
            {"type": "array", "items": STRING} | rule("self.all(a, self.all(b, a != b))"), ".rule",
            "try simplifying the rule, or adding maxItems", id="cost of loops",
        ),
    ],
)  # fmt: skip
def test_A38_a_faulty_rule_is_refused_when_it_is_written(schema: dict[str, Any], path: str, words: str) -> None:
    found = list(rule_faults({"type": "object", "properties": {"a": schema}}, "schema"))
    assert len([fault for fault in found if "entire OpenAPIv3 schema" not in fault.detail]) == 1
    assert found[0].path.startswith("schema.properties[a].")
    assert found[0].path.endswith(f"x-kubernetes-validations[0]{path}")
    assert re.search(words, str(found[0])), str(found[0])


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(SCHEMA, id="the example"),
        pytest.param({"type": "object"} | rule("self.metadata.name.size() < 9 && self.kind == 'A'"), id="implicit"),
        pytest.param(OBJECT | rule("oldSelf.hasValue() || self.count > 0", optionalOldSelf=True), id="optional old"),
        pytest.param(
            {"type": "array", "maxItems": 8, "items": {**STRING, "maxLength": 20}}
            | rule("self.all(a, self.exists_one(b, a == b))"),
            id="bounded loops",
        ),
        pytest.param(
            {"type": "object", "x-kubernetes-preserve-unknown-fields": True} | rule("self.a.b > 1"), id="free"
        ),
        pytest.param(
            {"type": "object", "properties": {"namespace": STRING, "a-b": STRING}}
            | rule("self.__namespace__ == self.a__dash__b && has(self.__namespace__)"),
            id="escapes",
        ),
        pytest.param({"x-kubernetes-int-or-string": True} | rule("self == 1 || self == 'a'"), id="int or string"),
        pytest.param(
            {"type": "string", "format": "date-time"} | rule("self < timestamp('2030-01-01T00:00:00Z')"), id="time"
        ),
    ],
)
def test_A38_good_rules_are_taken(schema: dict[str, Any]) -> None:
    assert [str(fault) for fault in rule_faults(schema)] == []


@pytest.mark.parametrize(
    ("schema", "values", "faults"),
    [
        pytest.param(
            OBJECT | rule("self.count > 0", reason="FieldValueRequired", fieldPath=".count", message="give one"),
            ({"count": 0},), ["spec.count: Required value: give one"], id="reason and path",
        ),
        pytest.param(
            OBJECT | rule("oldSelf.hasValue() ? self == oldSelf.value() : self.count == 1", optionalOldSelf=True),
            ({"count": 2},), ['spec: Invalid value: "object": failed rule: oldSelf.hasValue() ? self == '
                              "oldSelf.value() : self.count == 1"], id="no value before",
        ),
        pytest.param(
            OBJECT | rule("oldSelf.?count.orValue(0) <= self.count", optionalOldSelf=True),
            ({"count": 2}, {"count": 1}), [], id="an optional before",
        ),
        pytest.param(
            OBJECT | rule("self.count > 0", message="m", messageExpression="'n' + self.none"),
            ({"count": 0},), ['spec: Invalid value: "object": m'], id="a message that fails",
        ),
        pytest.param(
            OBJECT | rule("self.count > 0"), ({"count": 0, "name": "b"}, {"count": 0, "name": "b"}), [],
            id="nothing was touched",
        ),
        pytest.param(
            OBJECT | rule("self.count > 0"), ({"count": 0, "name": "c"}, {"count": 0, "name": "b"}),
            ['spec: Invalid value: "object": failed rule: self.count > 0'], id="something was touched",
        ),
        pytest.param(
            {"type": "string", "format": "duration"} | rule("self < duration('1h')"), ("90m",),
            ['spec: Invalid value: "1:30:00": failed rule: self < duration(\'1h\')'], id="duration",
        ),
        pytest.param({"type": "number"} | rule("self + 0.5 > 1.0"), (1,), [], id="a whole number is a double"),
        pytest.param(
            {"type": "object", "x-kubernetes-preserve-unknown-fields": True} | rule("self.a + self.b == 1"),
            ({"a": 1, "b": "x"},),
            ['spec: Invalid value: "object": \'no such overload: _+_(int, string)\': call arguments did not match a'
             " supported operator, function or macro signature for rule: self.a + self.b == 1"],
            id="types that do not fit",
        ),
    ],
)  # fmt: skip
def test_A38_what_rules_say(schema: dict[str, Any], values: tuple[Any, ...], faults: list[str]) -> None:
    assert faults_of(schema, *values) == faults


def test_A38_rules_end_where_the_budget_of_the_object_does() -> None:
    item = {"type": "object", **rule("self.n.all(a, self.n.all(b, a + b >= 0))")}
    tree = build({"type": "array", "items": item})
    assert tree is not None
    value = [{"n": list(range(20))}] * 50
    assert check(tree, value) == []
    [found] = check(tree, value, budget=Budget(20_000))
    assert found.detail.endswith("running out of cost budget, no further validation rules will be run")


def test_A38_a_thousand_rules_on_a_large_object_stay_within_the_budget() -> None:
    item = {"type": "object", **rule("self.name.startsWith('n') && self.size < 100 && self.name.size() < 2000")}
    names = [f"f{index}" for index in range(1000)]
    schema = {"type": "object", "properties": dict.fromkeys(names, item)}
    value = {name: {"name": "n" * 1000, "size": 1} for name in names}
    tree = build(schema)
    assert tree is not None
    begun = time.process_time()
    assert check(tree, value) == []
    assert time.process_time() - begun < 1.0
