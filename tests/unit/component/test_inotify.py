"""A folder that is watched."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tiphys_component.inotify import FolderWatch


async def test_each_change_of_the_entries_wakes(tmp_path: Path) -> None:
    with FolderWatch(tmp_path) as watch:
        for change in (
            lambda: (tmp_path / "a").touch(),
            lambda: (tmp_path / "a").rename(tmp_path / "b"),
            lambda: (tmp_path / "b").unlink(),
        ):
            change()
            await asyncio.wait_for(watch.wait(), 1)


async def test_without_a_change_nobody_is_woken(tmp_path: Path) -> None:
    with FolderWatch(tmp_path) as watch, pytest.raises(TimeoutError):
        await asyncio.wait_for(watch.wait(), 0.02)


async def test_a_folder_that_goes_away_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with FolderWatch(folder) as watch:
        folder.rmdir()
        with pytest.raises(FileNotFoundError):
            await asyncio.wait_for(watch.wait(), 1)


async def test_a_folder_that_is_not_there_can_not_be_watched(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), FolderWatch(tmp_path / "none"):
        pass
