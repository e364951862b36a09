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


def other_plugins(folder: Path) -> Path:
    """A folder as Debian's: a plugin of a name that we have too, one of its own, and a file that is none."""
    folder.mkdir()
    for name, mode in (("bridge", 0o755), ("macvlan", 0o755), ("LICENSE", 0o644)):
        (folder / name).write_text(f"theirs: {name}")
        (folder / name).chmod(mode)
    return folder


def test_F18_plugins_of_others_stand_in_place_of_ours_and_beside_the_rest(tmp_path: Path) -> None:
    theirs, folder = other_plugins(tmp_path / "theirs"), tmp_path / "bin"
    folder.mkdir()
    # Where a start was ended in the middle of linking, ours must not be written through the link.
    (folder / ".loopback.new").symlink_to(theirs / "bridge")
    for _ in range(2):
        install(folder, "/run/a.sock", names=NAMES, compiler=None, others=theirs)

    assert sorted(path.name for path in folder.iterdir()) == [".installed", "bridge", "loopback", "macvlan"]
    assert (folder / "bridge").read_text() == (theirs / "bridge").read_text() == "theirs: bridge"
    assert "/run/a.sock" in (folder / "loopback").read_text()


def test_ours_come_back_when_the_others_are_no_longer_wanted(tmp_path: Path) -> None:
    theirs, folder = other_plugins(tmp_path / "theirs"), tmp_path / "bin"
    install(folder, "/run/a.sock", names=NAMES, compiler=None, others=theirs)
    install(folder, "/run/a.sock", names=NAMES, compiler=None)

    assert sorted(path.name for path in folder.iterdir()) == [".installed", *NAMES]
    assert "/run/a.sock" in (folder / "bridge").read_text()
    assert (theirs / "bridge").read_text() == "theirs: bridge"


@pytest.mark.parametrize("change", ["socket", "lost"])
def test_another_socket_or_a_lost_launcher_is_installed_anew(tmp_path: Path, change: str) -> None:
    install(tmp_path, "/run/a.sock", names=NAMES, compiler=None)
    before = stamps(tmp_path)
    if change == "lost":
        (tmp_path / "loopback").unlink()
    install(tmp_path, "/run/b.sock" if change == "socket" else "/run/a.sock", names=NAMES, compiler=None)

    assert all(new > old for new, old in zip(stamps(tmp_path), before, strict=True))
