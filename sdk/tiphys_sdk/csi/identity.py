"""Who a driver is and what it can do, worked out from what its author wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from google.protobuf import wrappers_pb2

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_sdk.csi import controller as controllers
from tiphys_sdk.csi import node as nodes
from tiphys_sdk.csi.driver import Driver

_Service = csi_pb2.PluginCapability.Service
KindT = TypeVar("KindT", bound=int)


def offered(part: object, base: type, table: Mapping[KindT, tuple[str, ...]], also: tuple[KindT, ...]) -> list[KindT]:
    """The capabilities of one service: those of the table whose calls are all overridden, and the others declared."""
    found = [
        kind
        for kind, calls in table.items()
        if all(getattr(type(part), call) is not getattr(base, call) for call in calls)
    ]
    return sorted({*found, *also})


def controller_capabilities(driver: Driver) -> csi_pb2.ControllerGetCapabilitiesResponse:
    """What the controller service offers."""
    reply = csi_pb2.ControllerGetCapabilitiesResponse()
    part = driver.controller
    if part is not None:
        for kind in offered(part, controllers.Controller, controllers.OFFERED_BY, part.also_offers):
            reply.capabilities.add().rpc.type = kind
    return reply


def node_capabilities(driver: Driver) -> csi_pb2.NodeGetCapabilitiesResponse:
    """What the node service offers."""
    reply = csi_pb2.NodeGetCapabilitiesResponse()
    part = driver.node
    if part is not None:
        for kind in offered(part, nodes.Node, nodes.OFFERED_BY, part.also_offers):
            reply.capabilities.add().rpc.type = kind
    return reply


class Identity:
    """The identity service of a driver."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def GetPluginInfo(self, request: csi_pb2.GetPluginInfoRequest) -> csi_pb2.GetPluginInfoResponse:
        """Name and version."""
        return csi_pb2.GetPluginInfoResponse(name=self._driver.name, vendor_version=self._driver.version)

    async def GetPluginCapabilities(
        self, request: csi_pb2.GetPluginCapabilitiesRequest
    ) -> csi_pb2.GetPluginCapabilitiesResponse:
        """The services there are, and how volumes grow."""
        driver = self._driver
        reply = csi_pb2.GetPluginCapabilitiesResponse()
        if driver.controller is not None:
            reply.capabilities.add().service.type = _Service.CONTROLLER_SERVICE
        if driver.topology:
            reply.capabilities.add().service.type = _Service.VOLUME_ACCESSIBILITY_CONSTRAINTS
        if driver.expansion is not None:
            reply.capabilities.add().volume_expansion.type = driver.expansion
        return reply

    async def Probe(self, request: csi_pb2.ProbeRequest) -> csi_pb2.ProbeResponse:
        """Whether the driver can be used now; raises what its own check raises."""
        check = self._driver.probe
        ready = True if check is None else await check()
        return csi_pb2.ProbeResponse(ready=wrappers_pb2.BoolValue(value=ready))
