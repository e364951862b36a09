"""JSON merge patch as RFC 7386 has it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys_apimachinery.patch.merge import apply_patch, create_patch


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_A28_cases_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    kept = copy.deepcopy((target, patch))
    assert apply_patch(target, patch) == result
    assert (target, patch) == kept


_VALUES = st.recursive(
    st.booleans() | st.integers(0, 3) | st.sampled_from("ab"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=8,
)
_OBJECTS = st.dictionaries(st.sampled_from("xyz"), _VALUES, max_size=3)


@given(_OBJECTS, _OBJECTS)
def test_created_patch_leads_from_one_to_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert apply_patch(before, create_patch(before, after)) == after


@given(_OBJECTS)
def test_equal_objects_need_no_patch(value: dict[str, Any]) -> None:
    assert create_patch(value, copy.deepcopy(value)) == {}
