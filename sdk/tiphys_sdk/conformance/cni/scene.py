"""The scratch node: a network namespace in which plugins run, and containers that are namespaces, too."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiphys_component.proc import CommandError, run_command
from tiphys_sdk.conformance.bench import Failure

# A device of the node that plugins may build upon (macvlan's master).
UPLINK = "uplink0"
_TIMEOUT_S = 20.0


@dataclass(slots=True)
class Scene:
    """A node of its own. `netns` is its name under /run/netns; `data` a folder that goes with it."""

    netns: str
    data: Path
    _containers: list[str] = field(default_factory=list)
    _made: int = 0

    async def container(self) -> str:
        """A new container; its name is its id, too."""
        name = f"{self.netns}-{self._made}"
        self._made += 1
        # Before it is there: whoever is cancelled amid it leaves half of one, which goes with the rest.
        self._containers.append(name)
        await _ip("netns", "add", name)
        return name

    async def forget(self, container: str) -> None:
        """The container's namespace goes; a second time nothing happens."""
        if container in self._containers:
            await _ip("netns", "del", container)
            self._containers.remove(container)

    async def ip(self, netns: str, *words: str) -> Any:
        """What `ip -j` says inside a namespace. Raises Failure."""
        try:
            done = await run_command(["ip", "-j", "-n", netns, *words], timeout_s=_TIMEOUT_S)
        except CommandError as err:
            raise Failure(f"ip {' '.join(words)}: {err}") from err
        return json.loads(done.stdout or b"[]")

    async def links(self, netns: str) -> dict[str, Any]:
        """The interfaces of a namespace by name, with their addresses."""
        return {link["ifname"]: link for link in await self.ip(netns, "-d", "address")}

    async def close(self) -> None:
        """Takes everything away."""
        for name in [*self._containers, self.netns]:
            await run_command(["ip", "netns", "del", name], timeout_s=_TIMEOUT_S, check=False)
        self._containers.clear()


@asynccontextmanager
async def open_scene(node: str = "") -> AsyncIterator[Scene]:
    """A scene, gone at the end. With a node's name its namespace is used as it is and stays.

    Raises ValueError where there can be none on this machine.
    """
    _refuse_impossible(node)
    name = node or f"cnikit{uuid.uuid4().hex[:6]}"
    data = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="cni-kit-"))
    scene = Scene(name, data)
    try:
        if not node:
            await _ip("netns", "add", name)
            await _ip("-n", name, "link", "set", "lo", "up")
        await _ip("-n", name, "link", "add", UPLINK, "type", "veth", "peer", "name", f"{UPLINK}p")
        for device in (UPLINK, f"{UPLINK}p"):
            await _ip("-n", name, "link", "set", device, "up")
        yield scene
    finally:
        if node:
            await run_command(["ip", "-n", node, "link", "del", UPLINK], timeout_s=_TIMEOUT_S, check=False)
            scene.netns = ""
        await scene.close()
        await asyncio.to_thread(shutil.rmtree, data, ignore_errors=True)


def _refuse_impossible(node: str) -> None:
    if os.geteuid() != 0:
        raise ValueError("testing CNI plugins makes network namespaces, which needs root")
    for tool in ("ip", "nsenter"):
        if shutil.which(tool) is None:
            raise ValueError(f"testing CNI plugins needs {tool}")
    if node and not Path(f"/run/netns/{node}").exists():
        raise ValueError(f"--option node: there is no network namespace /run/netns/{node}")


async def _ip(*words: str) -> None:
    try:
        await run_command(["ip", *words], timeout_s=_TIMEOUT_S)
    except CommandError as err:
        raise ValueError(f"no scratch namespaces can be made here: {err}") from err
