"""JSON patch applies whole or not at all, with errors that name the operation."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys_apimachinery.errors import APIError, BadRequest, Invalid, RequestEntityTooLarge
from tiphys_apimachinery.patch.json_patch import apply_patch


def test_A28_operations_apply_in_order_and_leave_the_target_alone() -> None:
    target = {"a": [1, 2], "b": {"c": 3}}
    operations = [
        {"op": "test", "path": "/b/c", "value": 3},
        {"op": "add", "path": "/a/-", "value": 4},
        {"op": "replace", "path": "/b/c", "value": 5},
        {"op": "remove", "path": "/a/0"},
        {"op": "copy", "from": "/b", "path": "/d"},
        {"op": "move", "from": "/b/c", "path": "/e~1f"},
    ]
    assert apply_patch(target, operations) == {"a": [2, 4], "b": {}, "d": {"c": 5}, "e/f": 5}
    assert target == {"a": [1, 2], "b": {"c": 3}}


@pytest.mark.parametrize(
    ("operations", "error"),
    [
        ({"op": "add"}, BadRequest),
        ([1], BadRequest),
        ([{"path": "/a"}], BadRequest),
        ([{"op": "explode", "path": "/a"}], BadRequest),
        ([{"op": "add", "path": "/a"}], BadRequest),
        ([{"op": "move", "path": "/a"}], BadRequest),
        ([{"op": "remove", "path": "/missing"}], Invalid),
        ([{"op": "replace", "path": "/missing", "value": 1}], Invalid),
        ([{"op": "test", "path": "/a", "value": [9]}], Invalid),
        ([{"op": "add", "path": "/a/9", "value": 1}], Invalid),
        ([{"op": "add", "path": "/a/x", "value": 1}], Invalid),
        ([{"op": "add", "path": "no-slash", "value": 1}], Invalid),
        ([{"op": "copy", "from": "/missing", "path": "/x"}], Invalid),
        ([{"op": "add", "path": "/b/c/d", "value": 1}], Invalid),
    ],
)
def test_bad_patch_is_named(operations: Any, error: type[APIError]) -> None:
    with pytest.raises(error):
        apply_patch({"a": [1], "b": {"c": 3}}, operations)


def test_copies_of_copies_are_bounded() -> None:
    operations = [{"op": "copy", "from": "", "path": f"/x{i}"} for i in range(40)]
    with pytest.raises(RequestEntityTooLarge):
        apply_patch({"a": "x" * 1000}, operations)
