"""How long a device plugin's devices take to be allocatable; tests/bench/cluster.py starts a cluster and calls this."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from time import perf_counter

from tests.bench.figures import Figure, median
from tests.bench.rest_client import Client, watch_object
from tiphys_component import log
from tiphys_component.clock import SystemClock
from tiphys_sdk.device.plugin import Device, DevicePlugin, Grant
from tiphys_sdk.device.serve import DeviceServer

ALLOCATABLE = "device plugin, start to allocatable seen by a watcher"
MOST_S = 0.5
_PLUGINS = 10
_TIMEOUT_S = 30.0
_NODES_PATH = "/api/v1/nodes"


class _Plugin(DevicePlugin):
    def __init__(self, resource: str) -> None:
        self.resource = resource

    async def devices(self) -> AsyncIterator[Sequence[Device]]:
        """Eight that never change."""
        yield [Device(str(number)) for number in range(8)]
        await asyncio.get_running_loop().create_future()

    async def allocate(self, ids: Sequence[str]) -> Grant:
        """Nothing: nobody asks."""
        return Grant()


async def measure_devices(client: Client, node: str, kubelet_root: Path) -> list[Figure]:
    """Plugins one after the other, each of its own resource. kubelet_root is the node's, as this process sees it."""
    # What plugins say would stand between the lines of the table.
    log.configure("error", "text")
    times_s = [await _time(client, node, kubelet_root, f"example.com/bench-{n}") for n in range(1 + _PLUGINS)]
    spread = f"best {min(times_s[1:]):.2f}, worst {max(times_s[1:]):.2f}; {_PLUGINS} one by one"
    return [Figure(ALLOCATABLE, median(times_s[1:]), "s", MOST_S, spread)]


async def _time(client: Client, node: str, kubelet_root: Path, resource: str) -> float:
    seen = asyncio.Event()
    watch = await watch_object(client, _NODES_PATH, node, f'"{resource}":"8"'.encode(), seen)
    began = perf_counter()
    server = DeviceServer(_Plugin(resource), kubelet_root / "device-plugins", SystemClock())
    serving = asyncio.ensure_future(server.run())
    try:
        await asyncio.wait_for(seen.wait(), _TIMEOUT_S)
        return perf_counter() - began
    finally:
        watch.close()
        serving.cancel()
        await asyncio.wait([serving])
