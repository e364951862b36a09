"""The calls of a driver's node service, bounded, with errors as users of Kubernetes know them.

Every call has a channel of its own: on a unix socket that costs a millisecond or two, a driver that started again is
found at once, and nothing is cut off when a driver registers anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from tiphys.thirdparty.csi.v1 import csi_pb2, csi_pb2_grpc
from tiphys_component import rpc
from tiphys_kubelet.volumes.interface import VolumeError

# Source: the documented time that a kubelet gives a driver.
CALL_TIMEOUT_S = 120.0
# The words in which Go programs, and so users, know the codes.
_CODE_WORDS = {code: "".join(word.capitalize() for word in code.name.split("_")) for code in grpc.StatusCode} | {
    grpc.StatusCode.CANCELLED: "Canceled",
    grpc.StatusCode.OK: "OK",
}
# A driver that says one of these has not begun, or has ended: nothing goes on behind the answer.
_FINAL = frozenset(grpc.StatusCode) - {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
}
Capability = csi_pb2.NodeServiceCapability.RPC


class CsiError(VolumeError):
    """A driver refused, failed or did not answer in time. `is_final` is false where it may still be at it."""

    def __init__(self, message: str, *, code: grpc.StatusCode) -> None:
        super().__init__(message)
        self.code = code

    @property
    def is_final(self) -> bool:
        """The driver is done with the call."""
        return self.code in _FINAL


@dataclass(frozen=True, slots=True)
class NodeClient:
    """Speaks to the driver at the path of a unix socket. Every method raises CsiError."""

    endpoint: str
    timeout_s: float = CALL_TIMEOUT_S

    async def info(self) -> csi_pb2.NodeGetInfoResponse:
        """Who the node is to the driver."""
        answer: csi_pb2.NodeGetInfoResponse = await self._call(
            lambda stub: stub.NodeGetInfo, csi_pb2.NodeGetInfoRequest()
        )
        return answer

    async def capabilities(self) -> frozenset[int]:
        """What the driver can do on a node, as Capability values."""
        request = csi_pb2.NodeGetCapabilitiesRequest()
        answer = await self._call(lambda stub: stub.NodeGetCapabilities, request)
        return frozenset(capability.rpc.type for capability in answer.capabilities)

    async def stage(self, request: csi_pb2.NodeStageVolumeRequest) -> None:
        """NodeStageVolume."""
        await self._call(lambda stub: stub.NodeStageVolume, request)

    async def unstage(self, handle: str, staging_path: str) -> None:
        """NodeUnstageVolume; one that the driver does not know is unstaged."""
        request = csi_pb2.NodeUnstageVolumeRequest(volume_id=handle, staging_target_path=staging_path)
        await self._forgiving(self._call(lambda stub: stub.NodeUnstageVolume, request))

    async def publish(self, request: csi_pb2.NodePublishVolumeRequest) -> None:
        """NodePublishVolume."""
        await self._call(lambda stub: stub.NodePublishVolume, request)

    async def unpublish(self, handle: str, target_path: str) -> None:
        """NodeUnpublishVolume; one that the driver does not know is unpublished."""
        request = csi_pb2.NodeUnpublishVolumeRequest(volume_id=handle, target_path=target_path)
        await self._forgiving(self._call(lambda stub: stub.NodeUnpublishVolume, request))

    async def expand(self, request: csi_pb2.NodeExpandVolumeRequest) -> int:
        """NodeExpandVolume; the size in bytes that the driver tells, 0 if it tells none."""
        return int((await self._call(lambda stub: stub.NodeExpandVolume, request)).capacity_bytes)

    async def stats(self, request: csi_pb2.NodeGetVolumeStatsRequest) -> csi_pb2.NodeGetVolumeStatsResponse:
        """NodeGetVolumeStats."""
        answer: csi_pb2.NodeGetVolumeStatsResponse = await self._call(lambda stub: stub.NodeGetVolumeStats, request)
        return answer

    async def _forgiving(self, call: Any) -> None:
        try:
            await call
        except CsiError as err:
            # The specification demands success for what is gone; some drivers say NOT_FOUND all the same.
            if err.code is not grpc.StatusCode.NOT_FOUND:
                raise

    async def _call(self, method: Callable[[csi_pb2_grpc.NodeAsyncStub], Any], request: Any) -> Any:
        channel = rpc.channel(rpc.unix_address(self.endpoint))
        try:
            stub = csi_pb2_grpc.NodeStub(channel)
            return await method(stub)(request, timeout=self.timeout_s)
        except grpc.aio.AioRpcError as err:
            raise CsiError(_words(err), code=err.code()) from err
        finally:
            await channel.close(None)


def _words(err: grpc.aio.AioRpcError) -> str:
    late = err.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    return (
        f"rpc error: code = {_CODE_WORDS[err.code()]} desc = {'context deadline exceeded' if late else err.details()}"
    )
