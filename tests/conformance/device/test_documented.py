"""The plugin of docs/adding/device-plugin.md is taken out of the page, started, registered and judged."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

from tests.support.devices import device_side, short_folder
from tiphys_component.clock import SystemClock
from tiphys_component.inotify import FolderWatch
from tiphys_sdk.conformance.bench import Bench
from tiphys_sdk.conformance.device.kit import run

_PAGE = Path(__file__).parents[3] / "docs" / "adding" / "device-plugin.md"
RESOURCE = "example.com/loop"


def documented_plugin() -> str:
    """The first block of Python on the page."""
    found = re.search(r"```python\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


async def test_plugin_of_the_page_registers_and_passes_the_kit() -> None:
    with short_folder() as folder:
        program, sockets, devices = folder / "loops.py", folder / "k", folder / "dev"
        program.write_text(documented_plugin())
        sockets.mkdir()
        devices.mkdir()
        for number in range(2):
            (devices / f"loop{number}").touch()
        process = subprocess.Popen([sys.executable, str(program), str(sockets), str(devices)])
        socket = sockets / "example.com-loop.sock"
        try:
            with FolderWatch(sockets) as watch:
                async with asyncio.timeout(20):
                    while not socket.exists():  # one look
                        await watch.wait()
            bench = Bench(SystemClock())
            await run(str(socket), bench, {"resource": RESOURCE})
            assert bench.report.passed, bench.report.to_json()
            async with device_side(sockets) as side:
                await side.until_counts(2, 2, RESOURCE)
                (devices / "loop2").touch()
                await side.until_counts(3, 3, RESOURCE)
        finally:
            process.terminate()
            process.wait(timeout=10)
