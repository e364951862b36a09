"""Serves a driver: its socket, its registration with the kubelet, checks and locks around each call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf import symbol_database
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_component.app import start_loop
from tiphys_component.rpc import Server, Servicer
from tiphys_sdk.csi.calls import Calls
from tiphys_sdk.csi.checks import check, lock_keys
from tiphys_sdk.csi.controller import Controller
from tiphys_sdk.csi.driver import Driver
from tiphys_sdk.csi.identity import Identity, controller_capabilities, node_capabilities
from tiphys_sdk.csi.node import Node
from tiphys_sdk.csi.status import reply_for
from tiphys_sdk.registration import PluginInfo, RegistrationServer
from tiphys_sdk.sockets import claim, socket_path

# The version by which kubelets know the interface: that of the specification, not of the package csi.v1.
CSI_VERSION = "1.0.0"

Call = Callable[[Any], Awaitable[Any]]


class DriverServer:
    """A driver on its socket. With a registration socket the kubelet of the node learns of it."""

    def __init__(self, driver: Driver, endpoint: str, registration_socket: str = "") -> None:
        self._driver = driver
        self._path = socket_path(endpoint)
        self._registration = socket_path(registration_socket) if registration_socket else None
        self._calls = Calls()

    async def run(self) -> None:
        """Serves until cancelled. Raises StartupError where a socket can't be had."""
        server = Server(claim(self._path), None, self.servicers(), reply_for, flag="--endpoint", grace_s=1.0)
        async with asyncio.TaskGroup() as group:
            start_loop(group, self._calls.run(), "calls")
            # gRPC removes the socket when it stops.
            async with server:
                if self._registration is not None:
                    info = PluginInfo("CSIPlugin", self._driver.name, str(self._path), (CSI_VERSION,))
                    start_loop(group, RegistrationServer(self._registration, info).run(), "registration")
                await asyncio.get_running_loop().create_future()

    def servicers(self) -> tuple[Servicer, ...]:
        """The services to be served, for a server of one's own; run() must run beside it."""
        driver = self._driver
        services = csi_pb2.DESCRIPTOR.services_by_name
        found = [self._servicer(services["Identity"], _calls_of(Identity(driver), services["Identity"], None))]
        if driver.controller is not None:
            calls = _calls_of(driver.controller, services["Controller"], Controller)
            calls["ControllerGetCapabilities"] = _constant(controller_capabilities(driver))
            found.append(self._servicer(services["Controller"], calls))
        if driver.node is not None:
            calls = _calls_of(driver.node, services["Node"], Node)
            calls["NodeGetCapabilities"] = _constant(node_capabilities(driver))
            found.append(self._servicer(services["Node"], calls))
        return tuple(found)

    def _servicer(self, service: ServiceDescriptor, calls: Mapping[str, Call]) -> Servicer:
        messages = symbol_database.Default()
        handlers = {}
        for name, call in calls.items():
            method = service.methods_by_name[name]
            request: Any = messages.GetSymbol(method.input_type.full_name)
            handlers[name] = grpc.unary_unary_rpc_method_handler(
                self._guarded(call),
                request_deserializer=request.FromString,
                response_serializer=_serialized,
            )
        generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
        return Servicer((service.full_name,), lambda server: server.add_generic_rpc_handlers((generic,)))

    def _guarded(self, call: Call) -> Callable[[Message, Any], Awaitable[Any]]:
        async def serve(request: Message, _context: Any) -> Any:
            check(request)
            return await self._calls.do(lock_keys(request), lambda: call(request))

        return serve


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _constant(reply: Message) -> Call:
    async def answer(_request: Any) -> Message:
        return reply

    return answer


def _calls_of(part: object, service: ServiceDescriptor, base: type | None) -> dict[str, Call]:
    """The calls that the part really has: those that it overrides; all others gRPC answers with UNIMPLEMENTED."""
    names = [method.name for method in service.methods]
    return {
        name: getattr(part, name)
        for name in names
        if hasattr(part, name) and (base is None or getattr(type(part), name) is not getattr(base, name))
    }
