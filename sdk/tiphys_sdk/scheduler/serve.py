"""Serves a scheduler plugin over gRPC."""

from __future__ import annotations

from typing import Any

import numpy as np

from tiphys.scheduler.v1 import plugin_pb2, plugin_pb2_grpc
from tiphys_client.grpc_status import reply_for
from tiphys_component import rpc
from tiphys_component.proc import to_thread
from tiphys_sdk.scheduler.plugin import Label, Nodes, SchedulerPlugin
from tiphys_sdk.sockets import claim, socket_path


class SchedulerPluginServicer(plugin_pb2_grpc.SchedulerPluginServiceServicer):
    """Serves tiphys.scheduler.v1.SchedulerPluginService out of two functions."""

    def __init__(self, plugin: SchedulerPlugin) -> None:
        self._plugin = plugin

    async def Describe(self, request: plugin_pb2.DescribeRequest, context: Any) -> plugin_pb2.DescribeResponse:
        """What the plugin is; it filters and scores where it says so itself."""
        plugin = self._plugin
        return plugin_pb2.DescribeResponse(
            name=plugin.name,
            filters=type(plugin).filter is not SchedulerPlugin.filter,
            scores=type(plugin).score is not SchedulerPlugin.score,
            labels=plugin.labels,
            resources=plugin.resources,
            looks_at_requests=plugin.looks_at_requests,
            normalization=plugin_pb2.Normalization.ValueType(plugin.normalization.value),
        )

    async def Filter(self, request: plugin_pb2.FilterRequest, context: Any) -> plugin_pb2.FilterResponse:
        """The verdict on each node."""
        passes = self._plugin.filter(request.pod, columns(request.nodes))
        return plugin_pb2.FilterResponse(passes=passes.astype(np.uint8).tobytes(), reason=self._plugin.reason)

    async def Score(self, request: plugin_pb2.ScoreRequest, context: Any) -> plugin_pb2.ScoreResponse:
        """The raw score of each node."""
        scores = self._plugin.score(request.pod, columns(request.nodes))
        return plugin_pb2.ScoreResponse(scores=scores.astype("<i8").tobytes())


def columns(message: plugin_pb2.NodeColumns) -> Nodes:
    """The columns of a request, without a copy."""
    return Nodes(
        message.names,
        {name: np.frombuffer(raw, "<i8") for name, raw in message.capacity.items()},
        {name: np.frombuffer(raw, "<i8") for name, raw in message.requested.items()},
        {name: Label(label.values, np.frombuffer(label.indexes, "<i4")) for name, label in message.labels.items()},
    )


def plugin_service(plugin: SchedulerPlugin) -> rpc.Servicer:
    """What a server registers."""
    name = plugin_pb2.DESCRIPTOR.services_by_name["SchedulerPluginService"].full_name
    add = plugin_pb2_grpc.add_SchedulerPluginServiceServicer_to_server
    return rpc.Servicer((name,), lambda server: add(SchedulerPluginServicer(plugin), server))


async def serve(plugin: SchedulerPlugin, endpoint: str) -> None:
    """Serves until cancelled, on unix:///path. Raises StartupError where the socket can't be had."""
    path = socket_path(endpoint)
    address = await to_thread(claim, path)
    try:
        await rpc.Server(address, None, (plugin_service(plugin),), reply_for).run()
    finally:
        path.unlink(missing_ok=True)
