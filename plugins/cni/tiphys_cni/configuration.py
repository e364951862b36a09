"""Writes the node's network configuration once its pod range is known: from a flag, or from the Node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from tiphys.api.core.v1.node_pb2 import Node
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_cni.install import write_configuration
from tiphys_component.app import start_loop
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger

_log = get_logger("cni.configuration")


async def pod_ranges(client: Client, node_name: str, clock: Clock) -> AsyncIterator[str]:
    """The Node's podCIDR, whenever it becomes another."""
    informer: Informer[Node, object] = Informer(client, Node, field_selector=f"metadata.name={node_name}", clock=clock)
    changed = asyncio.Event()
    informer.add_handler(lambda _: changed.set(), lambda _old, _new: changed.set())
    last = ""
    async with asyncio.TaskGroup() as group:
        start_loop(group, informer.run(), "node informer")
        while True:
            await changed.wait()
            changed.clear()
            node = informer.get(node_name)
            if node is not None and node.spec.podCIDR not in ("", last):
                last = node.spec.podCIDR
                yield last


async def follow(ranges: AsyncIterator[str], folder: Path, *, data_dir: Path | None, mtu: int) -> None:
    """Writes a configuration for each range; the runtime notices the file by itself. Runs until cancelled."""
    async for pod_cidr in ranges:
        path = await asyncio.to_thread(write_configuration, folder, pod_cidr, data_dir=data_dir, mtu=mtu)
        _log.info("network configuration written", path=str(path), pod_cidr=pod_cidr)


async def fixed(pod_cidr: str) -> AsyncIterator[str]:
    """A range given by flag: it never changes."""
    yield pod_cidr
    await asyncio.get_running_loop().create_future()
