"""Field selectors select what their text says."""

from __future__ import annotations

import pytest

from tiphys_apimachinery.fields import FieldSelector, FieldSelectorError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("spec.nodeName=n1", True),
        ("spec.nodeName==n1,status.phase!=Failed", True),
        ("spec.nodeName!=n1", False),
        ("status.reason=", True),
        ("metadata.name=a\\,b\\=c\\\\", True),
    ],
)
def test_A22_selector_matches(text: str, expected: bool) -> None:
    fields = {"spec.nodeName": "n1", "status.phase": "Running", "metadata.name": "a,b=c\\"}
    selector = FieldSelector.parse(text)
    assert selector.matches(fields) is expected
    assert FieldSelector.parse(str(selector)) == selector


@pytest.mark.parametrize("text", ["spec.nodeName", "a=b=c", "a=b\\x"])
def test_bad_text_is_refused(text: str) -> None:
    with pytest.raises(FieldSelectorError):
        FieldSelector.parse(text)


def test_exact_value_is_known_for_indexes() -> None:
    selector = FieldSelector.parse("spec.nodeName=n1,status.phase!=Failed")
    assert selector.exact("spec.nodeName") == "n1"
    assert selector.exact("status.phase") is None
