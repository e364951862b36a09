"""The kubelet's side of the contract, as a kit plays it: takes registrations, and reads the list of devices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio

from tiphys.thirdparty.deviceplugin.v1beta1 import api_pb2, api_pb2_grpc
from tiphys_component.rpc import Server, Servicer, unix_address
from tiphys_sdk.conformance.bench import Bench

SOCKET_NAME = "kubelet.sock"


class PlayedKubelet(api_pb2_grpc.RegistrationServicer):
    """Keeps every registration, in order."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._requests: asyncio.Queue[api_pb2.RegisterRequest] = asyncio.Queue()

    async def Register(
        self,
        request: api_pb2.RegisterRequest,
        context: grpc.aio.ServicerContext[api_pb2.RegisterRequest, api_pb2.Empty],
    ) -> api_pb2.Empty:
        """A plugin makes itself known."""
        self._bench.record("Registration.Register (to the kubelet)", request, api_pb2.Empty())
        self._requests.put_nowait(request)
        return api_pb2.Empty()

    async def registration(self, endpoint: str) -> api_pb2.RegisterRequest:
        """The next registration of this endpoint; other plugins of the folder are passed over."""
        while True:
            request = await self._requests.get()
            if request.endpoint == endpoint:
                return request

    @asynccontextmanager
    async def listening(self, folder: Path) -> AsyncIterator[None]:
        """Serves kubelet.sock in the folder; it is gone when the context is left, as when a kubelet ends."""
        path = folder / SOCKET_NAME
        name = api_pb2.DESCRIPTOR.services_by_name["Registration"].full_name
        service = Servicer((name,), lambda server: api_pb2_grpc.add_RegistrationServicer_to_server(self, server))
        try:
            async with Server(unix_address(path), None, (service,), grace_s=0.1):
                yield
        finally:
            path.unlink(missing_ok=True)


class DeviceStream:
    """One ListAndWatch stream: the newest list, read in the background of a step."""

    def __init__(self, stub: api_pb2_grpc.DevicePluginAsyncStub) -> None:
        self._call = stub.ListAndWatch(api_pb2.Empty())
        self.lists = 0

    async def next(self) -> api_pb2.ListAndWatchResponse:
        """The next list. Raises EOFError when the plugin ended the stream, and AioRpcError."""
        found = await self._call.read()
        if found is grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs do not know it
            raise EOFError("the plugin ended the stream of devices; it must stay open for as long as the plugin lives")
        self.lists += 1
        return found  # type: ignore[return-value]  # either EOF or a message

    def close(self) -> None:
        """Ends it."""
        self._call.cancel()
