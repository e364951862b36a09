"""A plugin's registration socket, and a handler that keeps what it was told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from tiphys.thirdparty.pluginregistration.v1 import api_pb2, api_pb2_grpc
from tiphys_kubelet.plugin_watcher import PluginError


@dataclass(slots=True)
class Registrar(api_pb2_grpc.RegistrationServicer):
    """Answers GetInfo, and keeps what it is notified of; `hang` makes it never answer, `notice_after` answer late."""

    name: str = "a.driver"
    kind: str = "CSIPlugin"
    endpoint: str = ""
    versions: tuple[str, ...] = ("1.0.0",)
    hang: bool = False
    notice_after: asyncio.Event | None = None
    told: list[api_pb2.RegistrationStatus] = field(default_factory=list)
    asked: int = 0
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def GetInfo(self, request: api_pb2.InfoRequest, context: Any) -> api_pb2.PluginInfo:
        """Who the plugin is."""
        self.asked += 1
        if self.hang:
            await asyncio.Event().wait()
        return api_pb2.PluginInfo(
            type=self.kind, name=self.name, endpoint=self.endpoint, supported_versions=self.versions
        )

    async def NotifyRegistrationStatus(
        self, request: api_pb2.RegistrationStatus, context: Any
    ) -> api_pb2.RegistrationStatusResponse:
        """Keeps what it is told."""
        self.told.append(request)
        self.heard.set()
        if self.notice_after is not None:
            await self.notice_after.wait()
        return api_pb2.RegistrationStatusResponse()

    async def wait_told(self) -> api_pb2.RegistrationStatus:
        """What it was told last, waited for."""
        async with asyncio.timeout(10):
            await self.heard.wait()
        return self.told[-1]


@asynccontextmanager
async def registration_socket(path: Path, registrar: Registrar) -> AsyncIterator[Registrar]:
    """Serves the registrar at the path, which is removed at the end."""
    server = grpc.aio.server()
    api_pb2_grpc.add_RegistrationServicer_to_server(registrar, server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield registrar
    finally:
        await server.stop(0)
        await asyncio.to_thread(path.unlink, missing_ok=True)


@dataclass(slots=True)
class KeepingHandler:
    """A PluginHandler that keeps the calls, and refuses what it is told to."""

    calls: list[tuple[str, ...]] = field(default_factory=list)
    refusal: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def validate(self, name: str, endpoint: str, versions: Sequence[str]) -> None:
        """Refuses if it is to."""
        self._note("validate", name, *versions)
        if self.refusal:
            raise PluginError(self.refusal)

    async def register(self, name: str, endpoint: str, versions: Sequence[str]) -> None:
        """Keeps it."""
        self._note("register", name, Path(endpoint).name)

    async def deregister(self, name: str) -> None:
        """Keeps it."""
        self._note("deregister", name)

    def _note(self, *call: str) -> None:
        self.calls.append(call)
        self.changed.set()

    async def until(self, call: tuple[str, ...], count: int = 1) -> None:
        """Waits until it was called so, so many times."""
        async with asyncio.timeout(10):
            while self.calls.count(call) < count:
                self.changed.clear()
                await self.changed.wait()
