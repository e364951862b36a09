from __future__ import annotations

from pathlib import Path

import pytest

from tiphys_cni import conflist
from tiphys_cni.conflist import Template, TemplateError


def test_the_nodes_range_is_filled_in_wherever_it_has_a_place() -> None:
    template = Template('{"name": "n", "plugins": [{"type": "x", "a": "{{podCIDR}}", "b": ["{{podCIDR}}"]}]}')

    assert template.needs_range
    assert template.filled("10.1.0.0/24")["plugins"] == [{"type": "x", "a": "10.1.0.0/24", "b": ["10.1.0.0/24"]}]


def test_a_list_without_a_place_needs_no_range() -> None:
    assert not Template('{"name": "n", "plugins": [{"type": "x"}]}').needs_range


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{{podCIDR}}",
        '{"name": "n"}',
        '{"name": "n", "plugins": []}',
        '{"plugins": [{"type": "x"}]}',
        '{"name": "n", "plugins": [{}]}',
        '{"name": "n", "type": "bridge"}',
    ],
)
def test_what_is_no_list_is_refused_with_the_name_of_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.conflist"
    path.write_text(text)

    with pytest.raises(TemplateError, match=str(path)):
        conflist.read_template(path)


def test_a_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"nowhere\.conflist"):
        conflist.read_template(tmp_path / "nowhere.conflist")
