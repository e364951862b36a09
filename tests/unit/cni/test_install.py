from __future__ import annotations

import os
from pathlib import Path

import pytest

from tiphys_cni.install import install

NAMES = ("bridge", "loopback")


def stamps(folder: Path) -> list[int]:
    return [(folder / name).stat().st_mtime_ns for name in NAMES]


def test_a_launcher_for_each_plugin_is_executable_and_nothing_half_done_stays(tmp_path: Path) -> None:
    install(tmp_path, "/run/a.sock", names=NAMES, compiler=None)

    assert {path.name for path in tmp_path.iterdir()} == {*NAMES, ".installed"}
    assert all(os.access(tmp_path / name, os.X_OK) for name in NAMES)
    assert "/run/a.sock" in (tmp_path / "bridge").read_text()


def test_what_is_installed_already_is_left_alone(tmp_path: Path) -> None:
    install(tmp_path, "/run/a.sock", names=NAMES, compiler=None)
    before = stamps(tmp_path)
    install(tmp_path, "/run/a.sock", names=NAMES, compiler=None)

    assert stamps(tmp_path) == before


@pytest.mark.parametrize("change", ["socket", "lost"])
def test_another_socket_or_a_lost_launcher_is_installed_anew(tmp_path: Path, change: str) -> None:
    install(tmp_path, "/run/a.sock", names=NAMES, compiler=None)
    before = stamps(tmp_path)
    if change == "lost":
        (tmp_path / "loopback").unlink()
    install(tmp_path, "/run/b.sock" if change == "socket" else "/run/a.sock", names=NAMES, compiler=None)

    assert all(new > old for new, old in zip(stamps(tmp_path), before, strict=True))
