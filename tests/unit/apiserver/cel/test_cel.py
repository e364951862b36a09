"""CEL: Kubernetes' functions, what is refused when compiling, and rules along the values of custom resources."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys_apiserver.cel.program import Activation, CelError, compile_expression
from tiphys_apiserver.cel.rules import check, has_rules, rule_faults

OBJECT = {"metadata": {"name": "web"}, "spec": {"replicas": 3, "hosts": ["b", "a"], "memory": "1Gi"}}


def value(expression: str, **variables: Any) -> Any:
    known = {"object": OBJECT} | variables
    return compile_expression(expression, frozenset(known)).evaluate(Activation(known))


@pytest.mark.parametrize(
    "expression",
    [
        "object.spec.replicas <= 5 && object.metadata.name.startsWith('w')",
        "object.spec.hosts.all(h, h in ['a', 'b'])",
        "!has(object.spec.none)",
        "['a', 'b'].isSorted() && !object.spec.hosts.isSorted()",
        "[1, 2, 3].sum() == 6 && [3, 1].max() == 3 && [3, 1].min() == 1",
        "['a', 'b', 'a'].indexOf('b') == 1 && ['a', 'b', 'a'].lastIndexOf('a') == 2",
        "'a,b,c'.split(',', 2) == ['a', 'b,c'] && ['x', 'y'].join('-') == 'x-y'",
        "'abc'.substring(1) == 'bc' && 'abc'.charAt(1) == 'b' && ' x '.trim() == 'x'",
        "'abc-123'.find('[0-9]+') == '123' && 'a1b2'.findAll('[0-9]') == ['1', '2']",
        "'%s has %d'.format(['web', 3]) == 'web has 3'",
        "quantity(object.spec.memory).isGreaterThan(quantity('500Mi'))",
        "quantity('1').add(quantity('500m')).compareTo(quantity('1500m')) == 0",
        "quantity('50k').asInteger() == 50000 && !isQuantity('x') && quantity('-1').sign() == -1",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsIP(ip('11.0.0.1'))",
        "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.0.0.0/8').prefixLength() == 8",
        "ip('127.0.0.1').isLoopback() && ip('::1').family() == 6 && isIP('1.2.3.4') && !isIP('1.2.3')",
        "url('https://u@example.com:8080/p?x=1').getHostname() == 'example.com'",
        "url('https://example.com:8080/p?x=1').getPort() == '8080' && !isURL('nothing')",
        "sets.contains([1, 2, 3], [1, 2]) && sets.intersects([1], [1, 2])",
        "format.dns1123Label().validate('Not_Good').size() > 0",
        "timestamp('2026-01-01T00:00:00Z') < timestamp('2026-01-02T00:00:00Z')",
    ],
)
def test_A38_expressions(expression: str) -> None:
    assert value(expression) is True


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        pytest.param("object.spec.replicas >", "Syntax error", id="syntax"),
        pytest.param("objekt.spec.replicas > 1", "undeclared reference to 'objekt'", id="variable"),
        pytest.param("object.spec.replicas.frobnicate()", "undeclared reference to 'frobnicate'", id="function"),
        pytest.param("", "expression is empty", id="empty"),
        pytest.param("'x' == '" + "a" * 5000 + "'", "longer than", id="long"),
        pytest.param(
            "object.a.all(a, a.b.all(b, b.c.all(c, c.d.all(d, d > 1))))", "loops within each other", id="loops"
        ),
    ],
)
def test_A38_what_can_not_be_compiled_is_refused_in_words(expression: str, text: str) -> None:
    with pytest.raises(CelError, match=text):
        compile_expression(expression, frozenset({"object"}))


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        pytest.param("object.spec.none == 1", "no such key: none", id="key"),
        pytest.param("1 / 0 == 1", "division by zero", id="zero"),
        pytest.param("'a' + 1 == 'a1'", "Unsupported operation", id="types"),
        pytest.param("quantity('x').sign() == 1", "quantit", id="quantity"),
    ],
)
def test_A38_what_has_no_value_tells_why(expression: str, text: str) -> None:
    with pytest.raises(CelError, match=text):
        value(expression)


def test_A38_what_must_be_true_or_false_may_be_nothing_else() -> None:
    program = compile_expression("object.spec.replicas", frozenset({"object"}))
    with pytest.raises(CelError, match="gives int, not bool"):
        program.is_true(Activation({"object": OBJECT}))


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
    found = check(SCHEMA, new, path="spec") if old is None else check(SCHEMA, new, old, path="spec")
    assert [str(fault) for fault in found if "note" not in str(fault) or "note" in "".join(faults)] == faults


def test_A38_a_schema_with_a_bad_rule_is_told() -> None:
    bad = {"properties": {"a": {"x-kubernetes-validations": [{"rule": "self.foo("}]}}}
    assert has_rules(bad)
    assert not has_rules({"properties": {"a": {}}})
    [fault] = rule_faults(bad, "schema")
    assert fault.path == "schema.properties[a].x-kubernetes-validations[0].rule"
    assert "compilation failed: ERROR" in fault.detail
    assert list(rule_faults(SCHEMA)) == []
