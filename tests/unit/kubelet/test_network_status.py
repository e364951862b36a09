from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from tiphys.cni.v1 import cni_pb2, cni_pb2_grpc
from tiphys_kubelet.network_status import NetworkStatus
from tiphys_kubelet.node_status import plugin_trouble


class CniService(cni_pb2_grpc.CniServiceServicer):
    """Says what it is told to."""

    def __init__(self) -> None:
        self.answer = cni_pb2.GetStatusResponse(ready=True)

    async def GetStatus(
        self,
        request: cni_pb2.GetStatusRequest,
        context: grpc.aio.ServicerContext[cni_pb2.GetStatusRequest, cni_pb2.GetStatusResponse],
    ) -> cni_pb2.GetStatusResponse:
        return self.answer


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[CniService]:
    made = CniService()  # type: ignore[abstract]  # what a servicer leaves out is UNIMPLEMENTED; the stubs call it abstract
    server = grpc.aio.server()
    cni_pb2_grpc.add_CniServiceServicer_to_server(made, server)
    server.add_insecure_port(f"unix:{tmp_path}/cni.sock")
    await server.start()
    yield made
    await server.stop(0)


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (cni_pb2.GetStatusResponse(ready=True), ""),
        (cni_pb2.GetStatusResponse(ready=True, message="no addresses left", code=101), ""),
        (cni_pb2.GetStatusResponse(message="flannel: no subnet", code=50), "flannel: no subnet"),
    ],
    ids=["ready", "ready, with a word", "not ready"],
)
async def test_F23_trouble_is_what_the_plugin_says(
    service: CniService, tmp_path: Path, answer: cni_pb2.GetStatusResponse, trouble: str
) -> None:
    service.answer = answer

    assert await NetworkStatus(tmp_path / "cni.sock").trouble() == trouble


async def test_a_service_that_does_not_answer_is_no_trouble(tmp_path: Path) -> None:
    assert await NetworkStatus(tmp_path / "absent.sock").trouble() == ""


async def test_a_service_that_does_not_know_the_call_is_no_trouble(tmp_path: Path) -> None:
    server = grpc.aio.server()
    server.add_insecure_port(f"unix:{tmp_path}/old.sock")
    await server.start()
    try:
        assert await NetworkStatus(tmp_path / "old.sock").trouble() == ""
    finally:
        await server.stop(0)


def test_F23_the_node_tells_it_as_a_runtime_would() -> None:
    assert plugin_trouble("flannel: no subnet") == (
        "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
        "message:Network plugin returns error: flannel: no subnet"
    )
