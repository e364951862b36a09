"""Writes the node's network configuration once its range is known: from a flag, the Node, or the flannel service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from tiphys.api.core.v1.node_pb2 import Node
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_cni import conflist, masquerade
from tiphys_cni.flannel.subnet import SubnetFileError, read
from tiphys_component.app import start_loop
from tiphys_component.clock import Clock
from tiphys_component.inotify import FolderWatch
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


async def fixed(pod_cidr: str) -> AsyncIterator[str]:
    """A range given by flag: it never changes."""
    yield pod_cidr
    await asyncio.get_running_loop().create_future()


async def follow(ranges: AsyncIterator[str], folder: Path, *, data_dir: Path | None, mtu: int) -> None:
    """Writes a configuration for each range; the runtime notices the file by itself. Runs until cancelled."""
    async for pod_cidr in ranges:
        network = conflist.bridge_network(pod_cidr, data_dir=data_dir, mtu=mtu)
        path = await asyncio.to_thread(conflist.write, folder, network)
        _log.info("network configuration written", path=str(path), pod_cidr=pod_cidr)


async def follow_file(ranges: AsyncIterator[str], template: conflist.Template, folder: Path) -> None:
    """Writes the user's own configuration with each range filled in. Runs until cancelled."""
    async for pod_cidr in ranges:
        path = await asyncio.to_thread(conflist.write, folder, template.filled(pod_cidr))
        _log.info("network configuration written", path=str(path), pod_cidr=pod_cidr)


async def follow_flannel(subnet_file: Path, folder: Path, *, data_dir: Path | None, mtu: int) -> None:
    """Writes the configuration whenever the flannel service writes its file. Runs until cancelled.

    Without that file no pod could be attached, so a configuration of a life before is taken away at the start.
    """
    await asyncio.to_thread(_begin_flannel, subnet_file, folder)
    last = ""
    with FolderWatch(subnet_file.parent) as watch:
        while True:
            text = await asyncio.to_thread(_text, subnet_file)
            if text and text != last:
                await asyncio.to_thread(_write_flannel, subnet_file, folder, data_dir, mtu)
                last = text
            await watch.wait()


def _begin_flannel(subnet_file: Path, folder: Path) -> None:
    subnet_file.parent.mkdir(parents=True, exist_ok=True)
    if not subnet_file.exists():
        conflist.remove(folder)


def _text(subnet_file: Path) -> str:
    """What the file says; empty where it is missing or says nothing of use."""
    try:
        return read(subnet_file).text()
    except FileNotFoundError:
        return ""
    except SubnetFileError as err:
        _log.error("subnet file can't be used", path=str(subnet_file), err=str(err))
        return ""


def _write_flannel(subnet_file: Path, folder: Path, data_dir: Path | None, mtu: int) -> None:
    # The bridge's own masquerading, of a life without flannel, would hide pods from pods of other nodes.
    masquerade.remove(conflist.NETWORK)
    path = conflist.write(folder, conflist.flannel_network(subnet_file, data_dir=data_dir, mtu=mtu))
    _log.info("network configuration written", path=str(path), subnet_file=str(subnet_file))
