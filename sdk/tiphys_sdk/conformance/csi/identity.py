"""Steps on who the driver is, and what it says that it can do."""

from __future__ import annotations

import re

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_sdk.conformance.bench import expect
from tiphys_sdk.conformance.csi.session import ControllerRpc, NodeRpc, Session

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
_Service = csi_pb2.PluginCapability.Service


async def identity_steps(session: Session) -> None:
    """All of them; they fill in what the session knows of the driver."""
    bench = session.bench
    async with bench.step("identity: name", "GetPluginInfo gives a name in the form of a domain, of at most 63 bytes"):
        info = await session.call(session.identity, "GetPluginInfo", csi_pb2.GetPluginInfoRequest())
        again = await session.call(session.identity, "GetPluginInfo", csi_pb2.GetPluginInfoRequest())
        expect(_NAME.fullmatch(info.name), f"the name is {info.name!r}")
        expect(info == again, "two calls gave two answers")
        expect(info.vendor_version, "vendor_version is empty")
    async with bench.step("identity: capabilities", "GetPluginCapabilities gives the same each time"):
        request = csi_pb2.GetPluginCapabilitiesRequest()
        reply = await session.call(session.identity, "GetPluginCapabilities", request)
        again = await session.call(session.identity, "GetPluginCapabilities", request)
        expect(reply == again, "two calls gave two answers")
        services = {one.service.type for one in reply.capabilities if one.WhichOneof("type") == "service"}
        expect(_Service.UNKNOWN not in services, "a capability has no type")
        session.has_controller = _Service.CONTROLLER_SERVICE in services
        session.has_topology = _Service.VOLUME_ACCESSIBILITY_CONSTRAINTS in services
    async with bench.step("identity: probe", "Probe of a driver that serves says that it is ready"):
        ready = await session.call(session.identity, "Probe", csi_pb2.ProbeRequest())
        expect(not ready.HasField("ready") or ready.ready.value, "it says that it is not ready")
    await _controller_capabilities(session)
    await _node_capabilities(session)
    await _node_info(session)


async def _controller_capabilities(session: Session) -> None:
    demand = "ControllerGetCapabilities gives each capability once, and the same each time"
    async with session.bench.step("controller: capabilities", demand):
        if not session.has_controller:
            session.bench.skip("the driver has no controller service")
        request = csi_pb2.ControllerGetCapabilitiesRequest()
        reply = await session.call(session.controller, "ControllerGetCapabilities", request)
        again = await session.call(session.controller, "ControllerGetCapabilities", request)
        kinds = [one.rpc.type for one in reply.capabilities]
        session.offered = frozenset(kinds)
        expect(reply == again, "two calls gave two answers")
        expect(len(set(kinds)) == len(kinds), "a capability is given twice")
        expect(ControllerRpc.UNKNOWN not in kinds, "a capability has no type")


async def _node_capabilities(session: Session) -> None:
    demand = "NodeGetCapabilities gives each capability once, and the same each time"
    async with session.bench.step("node: capabilities", demand):
        request = csi_pb2.NodeGetCapabilitiesRequest()
        reply = await session.call(session.node, "NodeGetCapabilities", request)
        again = await session.call(session.node, "NodeGetCapabilities", request)
        kinds = [one.rpc.type for one in reply.capabilities]
        session.node_offered = frozenset(kinds)
        expect(reply == again, "two calls gave two answers")
        expect(len(set(kinds)) == len(kinds), "a capability is given twice")
        expect(NodeRpc.UNKNOWN not in kinds, "a capability has no type")


async def _node_info(session: Session) -> None:
    demand = "NodeGetInfo gives an id of at most 256 bytes, and a place where the driver has topology"
    async with session.bench.step("node: info", demand):
        reply = await session.call(session.node, "NodeGetInfo", csi_pb2.NodeGetInfoRequest())
        again = await session.call(session.node, "NodeGetInfo", csi_pb2.NodeGetInfoRequest())
        session.node_id = reply.node_id
        expect(reply.node_id, "node_id is empty")
        expect(len(reply.node_id.encode()) <= 256, f"node_id has {len(reply.node_id.encode())} bytes")
        expect(reply == again, "two calls gave two answers")
        expect(reply.max_volumes_per_node >= 0, f"max_volumes_per_node is {reply.max_volumes_per_node}")
        if session.has_topology:
            expect(reply.accessible_topology.segments, "the driver has topology and does not say where the node is")
