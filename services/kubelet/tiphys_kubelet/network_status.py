"""What the plugins of the node's network say of themselves, by the CNI service: runtimes before CNI 1.1 don't ask."""

from __future__ import annotations

from pathlib import Path

import grpc

from tiphys.cni.v1 import cni_pb2, cni_pb2_grpc
from tiphys_component.log import get_logger
from tiphys_component.rpc import unix_address

_TIMEOUT_S = 2.0
_log = get_logger("kubelet.network-status")


class NetworkStatus:
    """Asks the node's CNI service; a service that does not answer is no trouble: launchers work without it."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._said = ""

    async def trouble(self) -> str:
        """Why the network is not ready, in the words of the plugin; empty where it is, or nobody says."""
        options = (("grpc.default_authority", "localhost"),)
        try:
            async with grpc.aio.insecure_channel(unix_address(self._socket), options=options) as channel:
                stub = cni_pb2_grpc.CniServiceStub(channel)
                told = await stub.GetStatus(cni_pb2.GetStatusRequest(), timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as err:
            _log.debug("CNI service does not tell its status", err=err.details())
            return ""
        if told.message != self._said:
            _log.info("network status", ready=told.ready, message=told.message)
            self._said = told.message
        return "" if told.ready else told.message
