"""The drivers of a node: found by their registration sockets, dropped when these go, asked again when they restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from tiphys.thirdparty.pluginregistration.v1 import api_pb2, api_pb2_grpc
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.inotify import FolderWatch
from tiphys_component.log import get_logger
from tiphys_component.rpc import channel, unix_address
from tiphys_csi.companion.driver import Driver, DriverError, connect

_RETRY_FOLDER_S = 1.0
_ASK_TIMEOUT_S = 5.0
_log = get_logger("csi.drivers")


@dataclass(frozen=True, slots=True)
class _Source:
    """One socket file: a driver that restarts makes another one under the same path."""

    path: str
    inode: int
    changed_ns: int


class NotACsiDriver(Exception):
    """A plugin of another kind."""


class Drivers:
    """Knows the drivers that answer. Listeners hear the name of each that came, came back, or went."""

    def __init__(self, folder: Path | None, addresses: Sequence[str], clock: Clock, timeout_s: float) -> None:
        self._folder = folder
        self._addresses = tuple(addresses)
        self._clock = clock
        self._timeout_s = timeout_s
        # By name; of two sockets that give one name the later one counts.
        self._drivers: dict[str, tuple[_Source, Driver]] = {}
        self._asking: dict[_Source, asyncio.Task[None]] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._looked = asyncio.Event()

    def get(self, name: str) -> Driver | None:
        """The driver of this name, None while there is none."""
        known = self._drivers.get(name)
        return None if known is None else known[1]

    def names(self) -> list[str]:
        """The drivers there are."""
        return sorted(self._drivers)

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Have listener called with a driver's name after it came or went."""
        self._listeners.append(listener)

    async def wait_looked(self) -> None:
        """Return when the folder was looked at once."""
        await self._looked.wait()

    async def run(self) -> None:
        """Follow the sockets until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for address in self._addresses:
                    self._ask_soon(group, _Source(address, 0, 0), registers=False)
                if self._folder is None:
                    self._looked.set()
                    await asyncio.get_running_loop().create_future()
                else:
                    await self._follow(group, self._folder)
        finally:
            for _, driver in self._drivers.values():
                await driver.close()
            self._drivers.clear()

    async def _follow(self, group: asyncio.TaskGroup, folder: Path) -> None:
        while True:
            try:
                await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
                with FolderWatch(folder) as watch:
                    while True:
                        self._take_over(group, await asyncio.to_thread(_sockets, folder))
                        self._looked.set()
                        await watch.wait()
            except OSError as err:
                _log.warning("folder of plugins can't be watched", path=str(folder), err=str(err))
                await self._clock.sleep(_RETRY_FOLDER_S)

    def _take_over(self, group: asyncio.TaskGroup, found: set[_Source]) -> None:
        for source in [one for one in self._asking if one not in found and one.inode]:
            self._asking.pop(source).cancel()
        for name, (source, _) in list(self._drivers.items()):
            if source not in found and source.inode:
                self._drop(group, name)
        known = {source for source, _ in self._drivers.values()} | set(self._asking)
        for source in sorted(found - known, key=lambda one: one.changed_ns):
            self._ask_soon(group, source, registers=True)

    def _ask_soon(self, group: asyncio.TaskGroup, source: _Source, *, registers: bool) -> None:
        work = self._ask(group, source, registers=registers)
        self._asking[source] = group.create_task(work, name=f"ask {source.path}")

    async def _ask(self, group: asyncio.TaskGroup, source: _Source, *, registers: bool) -> None:
        backoff = Backoff(0.1, 5.0, jitter=0.2)
        while True:
            try:
                async with asyncio.timeout(_ASK_TIMEOUT_S * 4):
                    path = await _endpoint(source.path) if registers else source.path.removeprefix("unix://")
                    driver = await connect(path, self._timeout_s)
            except NotACsiDriver:
                # Stays in _asking, so that it is not asked again.
                return
            except (DriverError, grpc.aio.AioRpcError, TimeoutError) as err:
                _log.debug("driver does not answer", path=source.path, err=str(err))
                await self._clock.sleep(backoff.next())
                continue
            break
        self._asking.pop(source, None)
        if driver.name in self._drivers:
            self._drop(group, driver.name, quietly=True)
        self._drivers[driver.name] = (source, driver)
        _log.info("driver found", driver=driver.name, endpoint=driver.endpoint)
        self._tell(driver.name)

    def _drop(self, group: asyncio.TaskGroup, name: str, *, quietly: bool = False) -> None:
        _, driver = self._drivers.pop(name)
        group.create_task(driver.close(), name=f"close {name}")
        if not quietly:
            _log.info("driver gone", driver=name)
            self._tell(name)

    def _tell(self, name: str) -> None:
        for listener in self._listeners:
            listener(name)


def _sockets(folder: Path) -> set[_Source]:
    found = set()
    for path in folder.rglob("*"):
        try:
            if path.is_socket() and not path.name.startswith("."):
                status = path.stat()
                found.add(_Source(str(path), status.st_ino, status.st_ctime_ns))
        except FileNotFoundError:
            continue
    return found


async def _endpoint(path: str) -> str:
    """Where the plugin behind a registration socket serves. Raises NotACsiDriver, AioRpcError."""
    async with channel(unix_address(path)) as opened:
        stub: Any = api_pb2_grpc.RegistrationStub(opened)
        info: api_pb2.PluginInfo = await stub.GetInfo(api_pb2.InfoRequest(), timeout=_ASK_TIMEOUT_S)
    if info.type != "CSIPlugin":
        raise NotACsiDriver(info.type)
    return info.endpoint.removeprefix("unix://") or path
