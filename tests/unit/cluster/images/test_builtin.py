from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tiphys_cluster.errors import ClusterError
from tiphys_cluster.images import builtin
from tiphys_cluster.images.builtin import Recipe


@pytest.mark.parametrize(
    ("missing", "package"), [("busybox", "busybox-static"), ("cc", "gcc")], ids=["busybox", "compiler"]
)
def test_what_is_missing_is_named_with_its_package(missing: str, package: str) -> None:
    names = {"cc": ("cc", "gcc", "clang")}.get(missing, (missing,))

    with pytest.raises(ClusterError, match=f"apt-get install {package}"):
        builtin.recipes(lambda name: None if name in names else "/bin/true")


def test_another_input_gives_another_file_in_the_cache() -> None:
    first = Recipe("a", (b"1",), lambda: b"")
    second = Recipe("a", (b"2",), lambda: b"")

    assert first.file_name != second.file_name
    assert first.file_name == Recipe("a", (b"1",), lambda: b"").file_name


def test_a_second_call_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def make(name: str) -> bytes:
        made.append(name)
        return b"archive"

    recipes = [Recipe(name, (name.encode(),), partial(make, name)) for name in ("a", "b")]
    monkeypatch.setattr(builtin, "recipes", lambda: recipes)

    first = builtin.ensure_archives(tmp_path)
    second = builtin.ensure_archives(tmp_path)

    assert first == second
    assert made == ["a", "b"]


def test_a_lost_archive_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "recipes", lambda: [Recipe("a", (), lambda: b"archive")])
    (path,) = builtin.ensure_archives(tmp_path)
    path.unlink()

    assert builtin.ensure_archives(tmp_path) == [path]
    assert path.read_bytes() == b"archive"


@pytest.mark.parametrize(
    ("text", "version"),
    [("BusyBox v1.35.0 (Debian 1:1.35.0-4) multi-call binary.\n", "1.35.0"), ("BusyBox v2.1 x", "2.1"), ("sh", "")],
    ids=["debian", "short", "none"],
)
def test_the_version_is_read_from_busybox_itself(text: str, version: str) -> None:
    assert builtin.busybox_version(text) == version
