"""The runtimes that must pass: the one in memory, and a real containerd where there is one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from tests.conformance.cri.subject import Subject
from tests.support.containerd import ContainerdNode, containerd_node, missing
from tests.support.promptness import PROMPTLY_S
from tiphys_component.clock import SystemClock
from tiphys_cri.endpoint import channel
from tiphys_cri.errors import CRIError
from tiphys_cri.fake import FakeImages, FakeRuntime
from tiphys_cri.image import GrpcImageService
from tiphys_cri.runtime import GrpcRuntimeService


@pytest.fixture(scope="session")
def containerd() -> Iterator[ContainerdNode]:
    """A containerd of its own."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    with asyncio.Runner() as runner:
        context = containerd_node("klc")
        node = runner.run(context.__aenter__())
        try:
            yield node
        finally:
            runner.run(context.__aexit__(None, None, None))


@pytest.fixture(params=["fake", pytest.param("containerd", marks=pytest.mark.containerd)])
def node(request: pytest.FixtureRequest) -> ContainerdNode | None:
    """Each runtime in turn; None stands for the one in memory."""
    if request.param == "fake":
        return None
    found: ContainerdNode = request.getfixturevalue("containerd")
    return found


@pytest.fixture
async def subject(node: ContainerdNode | None, tmp_path: Path) -> AsyncIterator[Subject]:
    """The runtime with what a test needs."""
    if node is None:
        images = FakeImages()
        images.add("busybox")
        yield Subject(FakeRuntime(SystemClock(), images=images), images, "busybox", tmp_path)
        return
    async with channel(node.endpoint) as dialled:
        subject = Subject(GrpcRuntimeService(dialled), GrpcImageService(dialled), "busybox", tmp_path)
        try:
            yield subject
        finally:
            for sandbox in await subject.runtime.list_pod_sandboxes():
                await _stop(subject, sandbox.id)
                await subject.runtime.remove_pod_sandbox(sandbox.id)


async def _stop(subject: Subject, sandbox_id: str) -> None:
    """Ask until it is stopped, as a kubelet does: containerd refuses while the shim of an ended container goes away."""
    async with asyncio.timeout(PROMPTLY_S):
        while True:
            try:
                return await subject.runtime.stop_pod_sandbox(sandbox_id)
            except CRIError as err:
                if err.code is not grpc.StatusCode.UNKNOWN:
                    raise
                await asyncio.sleep(0.1)
