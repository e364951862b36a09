"""The driver of docs/adding/csi-driver.md is taken out of the page, started, and passes the kit."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tiphys_component.clock import SystemClock
from tiphys_component.inotify import FolderWatch
from tiphys_sdk.conformance.bench import Bench
from tiphys_sdk.conformance.csi.kit import run

pytestmark = pytest.mark.netns
_PAGE = Path(__file__).parents[3] / "docs" / "adding" / "csi-driver.md"


def documented_driver() -> str:
    """The first block of Python on the page."""
    found = re.search(r"```python\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


async def test_driver_of_the_page_passes_the_kit() -> None:
    with TemporaryDirectory(prefix="tcsi", dir="/tmp") as name:
        folder = Path(name)
        (folder / "folders.py").write_text(documented_driver())
        words = ["--endpoint", f"unix://{folder}/csi.sock", "--node-id", "n1", "--root", str(folder / "volumes")]
        process = subprocess.Popen([sys.executable, str(folder / "folders.py"), *words])
        try:
            with FolderWatch(folder) as watch:
                async with asyncio.timeout(20):
                    while not (folder / "csi.sock").exists():  # one look
                        await watch.wait()
            bench = Bench(SystemClock())
            await run(f"unix://{folder}/csi.sock", bench, {"dir": name})
        finally:
            process.terminate()
            process.wait(10)
    assert not [f"{step.name}: {step.message}" for step in bench.report.failures]
    assert bench.report.passed
