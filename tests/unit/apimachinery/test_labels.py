"""Label selectors select what their text says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.labels import Operator, Requirement, Selector, SelectorError, from_label_selector


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("", {"a": "b"}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "c"}, False),
        ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False),
        ("a in (b, c)", {"a": "c"}, True),
        ("a in (b,c)", {}, False),
        ("a in ()", {"a": ""}, True),
        ("a notin (b)", {}, True),
        ("a notin (b)", {"a": "b"}, False),
        ("a", {"a": ""}, True),
        ("!a", {"b": "x"}, True),
        ("!a", {"a": "x"}, False),
        ("a>5", {"a": "6"}, True),
        ("a<5", {"a": "x"}, False),
        ("a=", {"a": ""}, True),
        ("in in (in)", {"in": "in"}, True),
        ("a=b,c notin (d)", {"a": "b", "c": "e"}, True),
        ("x.io/role=web , !old", {"x.io/role": "web"}, True),
    ],
)
def test_A21_selector_matches(text: str, labels: dict[str, str], expected: bool) -> None:
    assert Selector.parse(text).matches(labels) is expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a=b,", "expected: identifier after ','"),
        ("a in b", "expected: '('"),
        ("a in (b", "found ''"),
        ("=b", "expected: identifier"),
        ("a=v!", "expected"),
        ("-a=b", "name part must consist of alphanumeric characters"),
        ("a>x", "must be an integer"),
        ("a=-b", "a valid label must be an empty string"),
        ("a b", "expected: in, notin"),
    ],
)
def test_bad_selector_is_refused_with_its_place(text: str, part: str) -> None:
    with pytest.raises(SelectorError) as caught:
        Selector.parse(text)
    assert part in str(caught.value)


def test_absent_label_selector_selects_nothing_and_empty_one_everything() -> None:
    assert not from_label_selector(None).matches({"a": "b"})
    assert from_label_selector(meta_pb2.LabelSelector()).matches({})


def test_label_selector_message_combines_labels_and_expressions() -> None:
    selector = meta_pb2.LabelSelector(matchLabels={"app": "web"})
    selector.matchExpressions.add(key="tier", operator="NotIn", values=["old"])
    parsed = from_label_selector(selector)
    assert str(parsed) == "app=web,tier notin (old)"
    assert parsed.matches({"app": "web"})
    assert not parsed.matches({"app": "web", "tier": "old"})


def test_unknown_operator_in_a_message_is_refused() -> None:
    selector = meta_pb2.LabelSelector()
    selector.matchExpressions.add(key="tier", operator="Like", values=["x"])
    with pytest.raises(SelectorError, match="not a valid label selector operator"):
        from_label_selector(selector)


_KEYS = st.sampled_from(["a", "b", "c", "in", "x.io/y"])
_VALUES = st.sampled_from(["", "v", "w", "1", "22"])
_LABELS = st.dictionaries(_KEYS, _VALUES, max_size=5)


@st.composite
def _requirements(draw: st.DrawFn) -> Requirement:
    operator = draw(st.sampled_from(list(Operator)))
    match operator:
        case Operator.IN | Operator.NOT_IN:
            values = draw(st.lists(_VALUES, min_size=1, max_size=3))
        case Operator.EQUALS | Operator.NOT_EQUALS:
            values = [draw(_VALUES)]
        case Operator.GREATER_THAN | Operator.LESS_THAN:
            values = [str(draw(st.integers(0, 50)))]
        case _:
            values = []
    return Requirement.checked(draw(_KEYS), operator, values)


@given(st.lists(_requirements(), max_size=4), _LABELS)
def test_A21_text_of_a_selector_means_the_same_as_the_selector(
    terms: list[Requirement], labels: dict[str, str]
) -> None:
    selector = Selector(tuple(terms))
    again = Selector.parse(str(selector))
    assert again.matches(labels) == all(_brute(term, labels) for term in terms)


def _brute(term: Requirement, labels: dict[str, str]) -> bool:
    has, value = term.key in labels, labels.get(term.key, "")
    if term.operator in (Operator.GREATER_THAN, Operator.LESS_THAN):
        if not value.isdecimal():
            return False
        bound = int(term.values[0])
        return int(value) > bound if term.operator is Operator.GREATER_THAN else int(value) < bound
    return {
        Operator.IN: has and value in term.values,
        Operator.EQUALS: has and [value] == list(term.values),
        Operator.NOT_IN: not has or value not in term.values,
        Operator.NOT_EQUALS: not has or [value] != list(term.values),
        Operator.EXISTS: has,
        Operator.DOES_NOT_EXIST: not has,
    }[term.operator]
