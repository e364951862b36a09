from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from tiphys.cni.v1 import cni_pb2, cni_pb2_grpc
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_component.clock import FakeClock
from tiphys_cri.fake import FakeImages, FakeRuntime
from tiphys_kubelet.network_garbage import GRACE_S, NetworkGarbage


class CniService(cni_pb2_grpc.CniServiceServicer):
    """Says what it is told to, and remembers what it is to free."""

    def __init__(self) -> None:
        self.attached: list[str] = []
        self.freed: list[str] = []

    async def ListAttachments(
        self,
        request: cni_pb2.ListAttachmentsRequest,
        context: grpc.aio.ServicerContext[cni_pb2.ListAttachmentsRequest, cni_pb2.ListAttachmentsResponse],
    ) -> cni_pb2.ListAttachmentsResponse:
        found = [cni_pb2.Attachment(network="net", container_id=one, ifname="eth0") for one in self.attached]
        return cni_pb2.ListAttachmentsResponse(attachments=found)

    async def CollectGarbage(
        self,
        request: cni_pb2.CollectGarbageRequest,
        context: grpc.aio.ServicerContext[cni_pb2.CollectGarbageRequest, cni_pb2.CollectGarbageResponse],
    ) -> cni_pb2.CollectGarbageResponse:
        assert request.network == "net"
        assert not request.valid
        self.freed += [one.container_id for one in request.gone]
        return cni_pb2.CollectGarbageResponse(removed=len(request.gone))


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[CniService]:
    made = CniService()  # type: ignore[abstract]  # what a servicer leaves out is UNIMPLEMENTED; the stubs call it abstract
    server = grpc.aio.server()
    cni_pb2_grpc.add_CniServiceServicer_to_server(made, server)
    server.add_insecure_port(f"unix:{tmp_path}/cni.sock")
    await server.start()
    yield made
    await server.stop(0)


async def _relisted() -> None:
    """The runtime's picture is complete."""


async def _until_waiting(clock: FakeClock) -> None:
    async with asyncio.timeout(5):
        while clock.pending == 0:  # noqa: ASYNC110 - the call goes through a real socket
            await asyncio.sleep(0.001)


async def sandbox(runtime: FakeRuntime, name: str) -> str:
    metadata = cri.PodSandboxMetadata(name=name, namespace="default", uid=name, attempt=0)
    return await runtime.run_pod_sandbox(cri.PodSandboxConfig(metadata=metadata))


async def test_what_the_runtime_does_not_know_twice_is_freed(service: CniService, tmp_path: Path) -> None:
    clock = FakeClock()
    runtime = FakeRuntime(clock, images=FakeImages())
    known = await sandbox(runtime, "known")
    garbage = NetworkGarbage(tmp_path / "cni.sock", runtime, clock, _relisted)
    service.attached = [known, "lost", "gone-by-itself"]

    async with asyncio.TaskGroup() as group:
        work = group.create_task(garbage.collect())
        await _until_waiting(clock)
        # In the pause a sandbox is being made, that no list of the runtime has yet, and one goes by its own DEL.
        service.attached = [known, "lost", "just-being-made"]
        clock.advance(GRACE_S)

    assert work.result() == 1
    assert service.freed == ["lost"]


async def test_service_that_does_not_answer_is_asked_again(service: CniService, tmp_path: Path) -> None:
    clock = FakeClock()
    garbage = NetworkGarbage(tmp_path / "absent.sock", FakeRuntime(clock, images=FakeImages()), clock, _relisted)

    work = asyncio.ensure_future(garbage.run())
    try:
        await _until_waiting(clock)
        assert not work.done()
    finally:
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
