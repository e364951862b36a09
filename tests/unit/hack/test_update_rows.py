"""The page of rows counts what is due, and says why the rest is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from hack.update_rows import Row, page

_GANGS: Mapping[str, Any] = {"title": "Gangs", "not_due": "no contract"}
_FEATURES: Mapping[str, Mapping[str, Any]] = {
    "C": {"title": "Scheduler", "rows": {"C1": "Two steps", "C2": "a|b", "C29": _GANGS}}
}
_TESTED = {"tests/unit/test_steps.py": 2}


def test_a_row_that_is_not_due_says_why_and_is_not_counted() -> None:
    made = page(_FEATURES, {"C1": _TESTED})
    assert "## C. Scheduler (1 of 2)" in made
    assert "| C1 | Two steps | [steps](../tests/unit/test_steps.py) (2) |" in made
    assert "| C2 | a/b |  |" in made
    assert "| C29 | Gangs | not due: no contract |" in made


def test_a_row_that_was_not_due_and_has_tests_counts() -> None:
    made = page(_FEATURES, {"C1": _TESTED, "C29": _TESTED})
    assert "## C. Scheduler (2 of 3)" in made
    assert "not due" not in made.partition("## C.")[2]


def test_a_row_without_its_reason_is_refused() -> None:
    with pytest.raises(KeyError):
        Row.read("C29", {"title": "Gangs"}, {})
