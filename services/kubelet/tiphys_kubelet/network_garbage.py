"""Has the CNI service free what is left of sandboxes that the runtime no longer knows.

A runtime that loses its state, or a node that loses power in the middle of an ADD, leaves addresses and interfaces that
no DEL will ever name. Who is looked for twice, a while apart, and found in the runtime neither time, is gone: a sandbox
that is just being made is in the runtime's list by the second look, and what came since is not touched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc

from tiphys.cni.v1 import cni_pb2, cni_pb2_grpc
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.rpc import unix_address
from tiphys_cri.errors import CRIError
from tiphys_cri.interface import RuntimeService

GRACE_S = 60.0
PERIOD_S = 3600.0
_TIMEOUT_S = 30.0
_log = get_logger("kubelet.network-garbage")


class NetworkGarbage:
    """Looks at the start and every hour; a service that does not answer is asked again at the next look."""

    def __init__(
        self, socket: Path, runtime: RuntimeService, clock: Clock, wait_relisted: Callable[[], Awaitable[None]]
    ) -> None:
        self._socket = socket
        self._runtime = runtime
        self._clock = clock
        self._wait_relisted = wait_relisted

    async def run(self) -> None:
        """Works until cancelled."""
        await self._wait_relisted()
        while True:
            try:
                await self.collect()
            except (grpc.aio.AioRpcError, CRIError) as err:
                _log.warning("what sandboxes left on the network stays for now", err=str(err))
            await self._clock.sleep(PERIOD_S)

    async def collect(self) -> int:
        """One look, a pause, a second look; how many attachments were freed. Raises AioRpcError, CRIError."""
        options = (("grpc.default_authority", "localhost"),)
        async with grpc.aio.insecure_channel(unix_address(self._socket), options=options) as channel:
            stub = cni_pb2_grpc.CniServiceStub(channel)
            first = await self._unknown(stub)
            if not first:
                return 0
            await self._clock.sleep(GRACE_S)
            second = await self._unknown(stub)
            freed = 0
            for network in {key[0] for key in first.keys() & second.keys()}:
                gone = [second[key] for key in first.keys() & second.keys() if key[0] == network]
                request = cni_pb2.CollectGarbageRequest(network=network, gone=gone)
                answer = await stub.CollectGarbage(request, timeout=_TIMEOUT_S)
                freed += answer.removed
            if freed:
                _log.info("network cleared of sandboxes that are gone", attachments=freed)
            return freed

    async def _unknown(self, stub: cni_pb2_grpc.CniServiceAsyncStub) -> dict[tuple[str, str, str], cni_pb2.Attachment]:
        """Attachments of sandboxes that the runtime doesn't list; that list is the newer one."""
        listed = await stub.ListAttachments(cni_pb2.ListAttachmentsRequest(), timeout=_TIMEOUT_S)
        known = {sandbox.id for sandbox in await self._runtime.list_pod_sandboxes()}
        return {
            (one.network, one.container_id, one.ifname): one
            for one in listed.attachments
            if one.container_id not in known
        }
