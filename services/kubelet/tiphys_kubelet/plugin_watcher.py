"""Finds plugins by the sockets that they put into a directory, and hands each to whoever serves its type.

Every socket has one task: asks GetInfo, has the handler validate and register, and tells the plugin what came of it.
A socket that does not answer, as those do that a reboot left behind, is asked again until it answers or is gone; none
holds up another. A socket made anew at the same path is a plugin that started again, and is registered again.
Source: the documented plugin registration of kubelets (pluginregistration v1).
"""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import grpc
import grpc.aio

from tiphys.thirdparty.pluginregistration.v1 import api_pb2, api_pb2_grpc
from tiphys_component import rpc
from tiphys_component.app import interruptible
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.proc import to_thread
from tiphys_kubelet.directory_watch import DirectoryWatch

CALL_TIMEOUT_S = 5.0
# A socket without a listener is refused by the kernel at once, so asking often costs nothing.
SILENT_RETRY_S = (0.1, 1.0)
REFUSED_RETRY_S = (0.5, 30.0)
QUIET_TRIES = 4
_NO_ANSWER = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
M = TypeVar("M")


class PluginError(Exception):
    """A plugin can't be registered; it is told the message."""


class PluginHandler(Protocol):
    """Serves the plugins of one type. Calls for one name never overlap; a call may be cancelled and made again."""

    async def validate(self, name: str, endpoint: str, versions: Sequence[str]) -> None:
        """Raises PluginError if the plugin can't be served. The endpoint is the path of a unix socket."""

    async def register(self, name: str, endpoint: str, versions: Sequence[str]) -> None:
        """Takes the plugin up, in the place of an earlier one of its name. Raises PluginError to try again later."""

    async def deregister(self, name: str) -> None:
        """The plugin is gone. Succeeds where there is none, and never raises."""


class _Identity(NamedTuple):
    """Tells a socket from a later one at the same path; a change of mode or owner is none."""

    inode: int
    made_at_ns: int


class _Name(NamedTuple):
    type: str
    name: str


class _Silent(Exception):
    """Nobody listens, or no answer came in time."""


@dataclass(slots=True)
class _Socket:
    path: Path
    # None when it is gone.
    seen: _Identity | None
    registered: _Identity | None = None
    name: _Name | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    interrupt: Callable[[], object] | None = None

    def change(self, seen: _Identity | None) -> None:
        """Takes note of what lies there now, and drops what was being done with what lay there before."""
        self.seen = seen
        self.wake.set()
        if self.interrupt is not None:
            self.interrupt()


class PluginWatcher:
    """Follows the directory; `run` for ever. `handlers` are by type, such as CSIPlugin."""

    def __init__(self, directory: Path, handlers: Mapping[str, PluginHandler], clock: Clock) -> None:
        self._directory = directory
        self._handlers = handlers
        self._clock = clock
        self._sockets: dict[Path, _Socket] = {}
        # Which socket stands for a name: the one that registered last.
        self._owners: dict[_Name, Path] = {}
        self._locks: dict[_Name, asyncio.Lock] = {}
        self._log = get_logger("kubelet.plugins")

    async def run(self) -> None:
        """Registers what is there and what comes, deregisters what goes."""
        async with asyncio.TaskGroup() as group, DirectoryWatch(self._directory) as watch:
            while True:
                found = await to_thread(_sockets, watch)
                self._reconcile(found, group)
                await watch.wait()

    def _reconcile(self, found: Mapping[Path, _Identity], group: asyncio.TaskGroup) -> None:
        for path, entry in self._sockets.items():
            if found.get(path) != entry.seen:
                entry.change(found.get(path))
        for path in found.keys() - self._sockets.keys():
            self._sockets[path] = entry = _Socket(path, found[path])
            group.create_task(self._keep(entry), name=f"plugin {path.name}")

    async def _keep(self, entry: _Socket) -> None:
        """Brings one socket to where it belongs, until it is gone."""
        silent, refused = Backoff(*SILENT_RETRY_S), Backoff(*REFUSED_RETRY_S)
        told = ""
        while True:
            entry.wake.clear()
            if entry.seen is None:
                await self._deregister(entry)
                if entry.seen is None:
                    del self._sockets[entry.path]
                    return
            if entry.registered == entry.seen:
                await entry.wake.wait()
                continue
            try:
                await self._interruptibly(entry)
                silent.reset()
                refused.reset()
                told = ""
            except (_Silent, PluginError, OSError) as err:
                # One that is just starting makes its socket a moment before it listens: that is worth no line.
                if str(err) != told and not (isinstance(err, _Silent) and silent.failures < QUIET_TRIES):
                    told = str(err)
                    self._log.warning("plugin is not registered, will retry", socket=str(entry.path), err=told)
                await self._pause(entry, (silent if isinstance(err, _Silent) else refused).next())
            except Exception as err:
                # A fault of ours with one plugin must not end the others.
                self._log.exception("plugin watcher failed, will retry", socket=str(entry.path), err=repr(err))
                await self._pause(entry, refused.next())

    async def _interruptibly(self, entry: _Socket) -> None:
        def hold(task: asyncio.Task[None]) -> None:
            entry.interrupt = task.cancel

        try:
            await interruptible(self._register(entry), hold)
        finally:
            entry.interrupt = None

    async def _pause(self, entry: _Socket, seconds: float) -> None:
        timer = self._clock.call_later(seconds, entry.wake.set)
        try:
            await entry.wake.wait()
        finally:
            timer.cancel()

    async def _register(self, entry: _Socket) -> None:
        """Raises _Silent, or PluginError after having told the plugin."""
        identity = entry.seen
        await to_thread(_check_listens, entry.path)
        async with _stub(entry.path) as stub:
            info = await _told(stub.GetInfo(api_pb2.InfoRequest(), timeout=CALL_TIMEOUT_S))
            name = _Name(info.type, info.name)
            endpoint = info.endpoint or str(entry.path)
            try:
                await self._hand_over(entry, name, endpoint, tuple(info.supported_versions))
            except PluginError as err:
                refusal = api_pb2.RegistrationStatus(plugin_registered=False, error=str(err))
                with suppress(grpc.aio.AioRpcError):
                    await stub.NotifyRegistrationStatus(refusal, timeout=CALL_TIMEOUT_S)
                raise
            # Noted before anything is awaited: another of the name may go meanwhile and give the name back to this one.
            entry.registered = identity
            accepted = api_pb2.RegistrationStatus(plugin_registered=True)
            try:
                await _told(stub.NotifyRegistrationStatus(accepted, timeout=CALL_TIMEOUT_S))
            except (_Silent, PluginError):
                entry.registered = None
                raise
        self._log.info("plugin registered", type=name.type, plugin=name.name, endpoint=endpoint)

    async def _hand_over(self, entry: _Socket, name: _Name, endpoint: str, versions: Sequence[str]) -> None:
        handler = self._handlers.get(name.type)
        if handler is None:
            raise PluginError(f"no handler registered for plugin type: {name.type} at socket {entry.path}")
        if not name.name:
            raise PluginError(f"the plugin at socket {entry.path} has no name")
        if entry.name is not None and entry.name != name:
            await self._deregister(entry)
        async with self._lock(name):
            await handler.validate(name.name, endpoint, versions)
            # From here on it may be known to the handler, so its end must be told even if this does not succeed.
            self._owners[name], entry.name = entry.path, name
            await handler.register(name.name, endpoint, versions)

    async def _deregister(self, entry: _Socket) -> None:
        """Tells the handler, unless another socket stands for the name; a second one of the name takes its place."""
        name, entry.name, entry.registered = entry.name, None, None
        if name is None or self._owners.get(name) != entry.path:
            return
        del self._owners[name]
        async with self._lock(name):
            if name not in self._owners:
                try:
                    await self._handlers[name.type].deregister(name.name)
                    self._log.info("plugin deregistered", type=name.type, plugin=name.name)
                except Exception as err:
                    # A fault of ours with one plugin must not end the others.
                    self._log.exception("plugin can't be deregistered", plugin=name.name, err=repr(err))
        for other in self._sockets.values():
            if other.name == name:
                other.registered = None
                other.wake.set()

    def _lock(self, name: _Name) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())


def _sockets(watch: DirectoryWatch) -> dict[Path, _Identity]:
    """The sockets by path; names that begin with a dot are not for us. Blocks."""
    found = {}
    for entry in watch.entries():
        if entry.name.startswith("."):
            continue
        try:
            info = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISSOCK(info.st_mode):
            found[Path(entry.path)] = _Identity(info.st_ino, info.st_mtime_ns)
    return found


def _check_listens(path: Path) -> None:
    """Raises _Silent if nobody listens. Blocks no longer than the kernel takes to say so."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            # Its queue is full, so somebody listens.
            return
        except (ConnectionRefusedError, FileNotFoundError) as err:
            raise _Silent(f"nobody listens at {path}") from err


@asynccontextmanager
async def _stub(path: Path) -> AsyncIterator[api_pb2_grpc.RegistrationAsyncStub]:
    channel = rpc.channel(rpc.unix_address(path))
    try:
        yield api_pb2_grpc.RegistrationStub(channel)
    finally:
        await channel.close(None)


async def _told(call: Awaitable[M]) -> M:
    """The answer. Raises _Silent where none came, PluginError where it was an error."""
    try:
        return await call
    except grpc.aio.AioRpcError as err:
        kind = _Silent if err.code() in _NO_ANSWER else PluginError
        raise kind(f"the plugin did not answer: {err.details()}") from err
