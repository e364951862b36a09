"""Documents that name what is not there are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack import verify_docs


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(verify_docs, "ROOT", tmp_path)
    monkeypatch.setattr(verify_docs, "rooms", list)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "x.py").write_text("LIMIT = 1\n\n\nclass A:\n    def f(self): ...\n\n\ndef g(): ...\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("see `code/x.py`", [], id="path"),
        pytest.param("see `code/x`", [], id="module without suffix"),
        pytest.param("see `code/y.py`", ["`code/y.py` is not there"], id="no such path"),
        pytest.param("see `text/plain` and `apps/v1`", [], id="no folder of ours"),
        pytest.param("```\ncode/y.py `code/y.py`\n```", [], id="inside a fence"),
        pytest.param("`code/x.py`: `A`, `A.f` and `g`, `LIMIT`", [], id="names"),
        pytest.param("`code/x.py`:\n`A.f`,\n`A.h`", ["code/x.py has no `A.h`"], id="no such name"),
    ],
)
def test_what_is_not_there_is_told(tree: Path, text: str, told: list[str]) -> None:
    document = tree / "d.md"
    document.write_text(text)
    assert list(verify_docs.check(document)) == [f"d.md: {line}" for line in told]
