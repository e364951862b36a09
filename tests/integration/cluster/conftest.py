"""A zygote of a test's own, and waiting on what other processes do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tiphys_cluster import cgroups
from tiphys_cluster.choices import read_living
from tiphys_cluster.control import ZygoteClient, ensure_zygote, read_zygote
from tiphys_cluster.layout import Layout
from tiphys_cluster.processes import ProcessId

_WAIT_S = 10.0


async def wait_for(condition: Callable[[], Any]) -> Any:
    """The first true answer of condition; fails the test when there is none in time."""
    async with asyncio.timeout(_WAIT_S):
        while not (answer := condition()):  # noqa: ASYNC110  other processes set no event
            await asyncio.sleep(0.01)
    return answer


def read_json(path: Path) -> Any:
    """What a file holds, None as long as there is none."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def read_text(path: Path) -> str:
    """What a log holds so far."""
    return path.read_text() if path.exists() else ""


def recorded(layout: Layout, name: str) -> ProcessId | None:
    """The recorded process of a child, if it lives."""
    record = read_json(layout.child(name))
    process = ProcessId(record["pid"], record["start"]) if record else None
    return process if process is not None and process.is_alive() else None


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    toys = str(Path(__file__).parent / "toys")
    monkeypatch.setenv("PYTHONPATH", toys)
    return Layout(f"zt{os.getpid()}", tmp_path / "home", tmp_path / "run")


@pytest.fixture
async def zygote(layout: Layout) -> AsyncIterator[ZygoteClient]:
    client = await ensure_zygote(layout)
    try:
        async with client:
            yield client
    finally:
        await end_everything(layout)


async def end_everything(layout: Layout) -> None:
    """Kill what a test left, by its records."""
    for spec in read_living(layout):
        if spec.name == "keeper" and (process := recorded(layout, spec.name)):
            process.send(signal.SIGKILL)
    if (process := read_zygote(layout)) is not None:
        process.send(signal.SIGKILL)
    for path in layout.children.glob("*.json"):
        if (child := recorded(layout, path.stem)) is not None:
            child.send(signal.SIGKILL)
    await wait_for(lambda: not read_living(layout))
    await wait_for(lambda: all(map(cgroups.remove_tree, cgroups.trees(layout.cgroup))))
