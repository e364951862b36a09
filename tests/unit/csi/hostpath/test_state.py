"""State that is killed at any line, lost, or damaged."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tiphys_csi.hostpath.state import Snapshot, Store, Volume, id_for


def volume(name: str = "a", **changes: Any) -> Volume:
    return Volume(id=id_for(name), name=name, capacity_bytes=4096, **changes)


def opened(root: Path) -> Store:
    store = Store(root)
    store.recover()
    return store


def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.add_volume(volume())
    (store.data(volume()) / "file").write_text("kept")
    store.change_volume(volume(), capacity_bytes=8192, attached={"n1": True})
    snapshot = Snapshot(id=id_for("s"), name="s", source_volume_id=volume().id, size_bytes=8192)
    store.add_snapshot(snapshot, store.data(volume()))
    again = opened(tmp_path)
    assert again.volumes() == [replace(volume(), capacity_bytes=8192, attached={"n1": True})]
    assert again.snapshots() == [snapshot]
    assert (again.snapshot_data(snapshot) / "file").read_text() == "kept"


class Killed(BaseException):
    """Stands for SIGKILL: nobody catches it."""


def _killed_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies before its so-manieth change of the file system."""
    left = [number]

    def counted(name: str) -> None:
        real: Callable[..., object] = getattr(os, name)

        def call(*words: object, **options: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return real(*words, **options)

        monkeypatch.setattr(os, name, call)

    for name in ("rename", "replace", "mkdir", "fsync", "rmdir", "unlink"):
        counted(name)


@pytest.mark.parametrize("at", range(1, 9))
def test_kill_in_the_middle_of_adding_leaves_the_volume_whole_or_absent(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path)
    with monkeypatch.context() as patch:
        _killed_at(at, patch)
        with contextlib.suppress(Killed):
            store.add_volume(volume())
    again = opened(tmp_path)
    assert again.volumes() in ([], [volume()])
    assert not [name for name in os.listdir(tmp_path / "volumes") if name.startswith(".")]
    if not again.volumes():
        again.add_volume(volume())
    assert again.data(volume()).is_dir()


@pytest.mark.parametrize("at", range(1, 6))
def test_kill_in_the_middle_of_growing_leaves_the_old_size_or_the_new(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path)
    store.add_volume(volume())
    with monkeypatch.context() as patch:
        _killed_at(at, patch)
        with contextlib.suppress(Killed):
            store.change_volume(volume(), capacity_bytes=8192)
    found = opened(tmp_path).volume(volume().id)
    assert found is not None
    assert found.capacity_bytes in (4096, 8192)


@pytest.mark.parametrize("at", range(1, 8))
def test_kill_in_the_middle_of_deleting_leaves_nothing_half(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path)
    store.add_volume(volume())
    (store.data(volume()) / "file").write_text("x")
    with monkeypatch.context() as patch:
        _killed_at(at, patch)
        with contextlib.suppress(Killed):
            store.remove_volume(volume().id)
    again = opened(tmp_path)
    if again.volumes():
        assert (again.data(volume()) / "file").read_text() == "x"
    again.remove_volume(volume().id)
    again.remove_volume(volume().id)
    assert os.listdir(tmp_path / "volumes") == []


def test_store_whose_disk_was_lost_knows_nothing_and_serves_on(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.add_volume(volume())
    (tmp_path / "volumes").rename(tmp_path / "lost")
    assert store.volume(volume().id) is None
    assert store.volumes() == []
    store.remove_volume(volume().id)


@pytest.mark.parametrize("identity", ["", "..", "../../etc", "A" * 32, "x"])
def test_id_that_is_not_ours_never_reaches_the_file_system(identity: str, tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert store.volume(identity) is None
    store.remove_volume(identity)
    assert tmp_path.exists()


def test_copy_of_a_block_volume_has_its_own_size(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.add_volume(volume("a", kind="block"))
    store.data(volume("a", kind="block")).write_bytes(b"data".ljust(4096, b"\0"))
    larger = Volume(id=id_for("b"), name="b", capacity_bytes=8192, kind="block")
    store.copy_volume(larger, store.data(volume("a", kind="block")))
    found = store.data(larger).read_bytes()
    assert len(found) == 8192
    assert found.startswith(b"data")
