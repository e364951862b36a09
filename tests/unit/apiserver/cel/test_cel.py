"""CEL: what is refused when compiling and when evaluating, and what evaluation may cost."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys_apimachinery.cel.program import Activation, Budget
from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apiserver.cel.expressions import compile_expression

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
        "format.dns1123Label().validate('Not_Good').hasValue()",
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
        pytest.param("'x' == '" + "a" * 70000 + "'", "longer than", id="long"),
        pytest.param("(" * 200 + "1" + ")" * 200, "nested too deeply", id="deep"),
        pytest.param("!" * 200 + "true", "nested too deeply", id="deep signs"),
        pytest.param("object.spec.size(1, 2)", "no matching overload for 'size'", id="arguments"),
        pytest.param("Object{spec: 1}", "undeclared reference to 'Object'", id="objects outside of mutations"),
        pytest.param("has(object)", r"invalid argument to has\(\) macro", id="has"),
        pytest.param("[1].all(1, true)", "must be a simple name", id="variable of a macro"),
        pytest.param("'abc", "Syntax error: token recognition", id="open text"),
        pytest.param("9223372036854775808", "invalid int literal", id="large number"),
        pytest.param("1 = 1", "token recognition error", id="equals"),
        pytest.param("package", "reserved identifier: package", id="reserved"),
        pytest.param("1 1", "1:3: Syntax error: mismatched input '1' expecting '<EOF>'", id="place"),
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
        pytest.param("'a' + 1 == 'a1'", "no such overload", id="types"),
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


@pytest.mark.parametrize(
    ("expression", "limit"),
    [
        pytest.param("object.spec.hosts.all(h, h != '')", 10, id="loop"),
        pytest.param("'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'.matches('(a+)+b')", 5, id="pattern"),
        pytest.param("lists.range(1000000).size() == 0", 1000, id="range"),
    ],
)
def test_A38_what_costs_more_than_it_may_is_cancelled(expression: str, limit: int) -> None:
    activation = Activation({"object": OBJECT}, Budget(limit))
    with pytest.raises(CelError, match="running out of cost budget"):
        compile_expression(expression, frozenset({"object"})).evaluate(activation)


def test_A38_one_expression_may_cost_less_than_all_together() -> None:
    deep = "lists.range(2000).all(a, lists.range(2000).all(b, a + b >= 0))"
    activation = Activation({})
    with pytest.raises(CelError, match="actual cost limit exceeded"):
        compile_expression(deep, frozenset()).evaluate(activation)
    assert 8_000_000 < activation.budget.left <= 9_000_000


def test_A38_logic_decides_in_spite_of_errors() -> None:
    broken = "object.none == 1"
    for expression in (f"true || {broken}", f"{broken} || true", f"!({broken} && false)", f"!(false && {broken})"):
        assert value(expression) is True
    for expression in (f"false || {broken}", f"{broken} && true"):
        with pytest.raises(CelError, match="no such key"):
            value(expression)
    assert value("[0, 1].exists(n, 1 / n == 1)") is True
    with pytest.raises(CelError, match="division by zero"):
        value("[0, 2].exists(n, 1 / n == 1)")
