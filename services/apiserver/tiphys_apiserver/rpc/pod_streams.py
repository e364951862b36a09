"""GetLog and Exec of pods, streamed through the server from and to the pod's kubelet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from tiphys.api.core.v1 import pod_options_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys.apiserver.v1 import wire_pb2
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.errors import BadRequest
from tiphys_apiserver.rest.kubelet import KubeletProxy
from tiphys_apiserver.rest.kubelet_streams import ERROR, STDERR, STDOUT, CommandStream, run_command, stream_log
from tiphys_apiserver.rpc.context import make_call
from tiphys_apiserver.rpc.resource_service import ResourceService, decode_message, only_field

Context = Any
# Numbers of ExecResponse's fields by channel.
_OUTPUTS = {STDOUT: 1, STDERR: 2}
_STATUS_FIELD = 3


class PodStreamMethods:
    """The streams of the pods' service."""

    def __init__(self, service: ResourceService, kubelets: KubeletProxy) -> None:
        self._service = service
        self._kubelets = kubelets

    def methods(self) -> dict[str, Any]:
        """Handler by method name."""
        return {
            "GetLog": grpc.unary_stream_rpc_method_handler(
                self.get_log, request_deserializer=wire_pb2.GetLogRequest.FromString
            ),
            "Exec": grpc.stream_stream_rpc_method_handler(
                self.exec, request_deserializer=wire_pb2.ExecRequest.FromString
            ),
        }

    async def get_log(self, request: Any, context: Context) -> AsyncIterator[bytes]:
        """The log of one container, as it comes."""
        service = self._service
        options = decode_message(pod_options_pb2.PodLogOptions, "v1", "PodLogOptions", request.options, "")
        call = make_call(
            context, service.served, "get", namespace=request.namespace, name=request.name, subresource="log"
        )
        target = await service.chain.run(call, lambda: self._kubelets.log_target(call, service.served, options))
        async for piece in stream_log(target):
            yield only_field(piece)

    async def exec(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[bytes]:
        """Run a command; the first request says which, the last answer how it ended."""
        service = self._service
        first = await anext(aiter(requests), None)
        if first is None or not first.HasField("start"):
            raise BadRequest("the first request has no start")
        start = first.start
        options = decode_message(pod_options_pb2.PodExecOptions, "v1", "PodExecOptions", start.options, "")
        call = make_call(
            context, service.served, "create", namespace=start.namespace, name=start.name, subresource="exec"
        )
        target = await service.chain.run(call, lambda: self._kubelets.exec_target(call, service.served, options))
        async with run_command(target) as stream, asyncio.TaskGroup() as group:
            feeding = group.create_task(_feed(requests, stream), name="stdin of a command")
            async for channel, data in stream:
                if channel == ERROR:
                    status = json_codec.loads(data, meta_pb2.Status)
                    yield only_field(status.SerializeToString(), _STATUS_FIELD)
                    break
                if channel in _OUTPUTS:
                    yield only_field(data, _OUTPUTS[channel])
            feeding.cancel()


async def _feed(requests: AsyncIterator[Any], stream: CommandStream) -> None:
    """Hand on what the caller types, until it ends the input or the command has ended."""
    try:
        async for request in requests:
            if request.stdin:
                await stream.send(request.stdin)
            if request.HasField("resize"):
                await stream.resize(request.resize.width, request.resize.height)
            if request.close_stdin:
                await stream.close_stdin()
    except ConnectionError:
        # The command ended while input was on its way: its status comes by the other direction.
        return
