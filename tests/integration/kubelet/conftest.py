"""One containerd for all tests of the kubelet on a real runtime."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.containerd import ContainerdNode, containerd_node, missing
from tests.support.kubelet import RunningKubelet, running_kubelet
from tiphys_cri.endpoint import channel
from tiphys_cri.errors import CRIError
from tiphys_cri.runtime import GrpcRuntimeService


@pytest.fixture(scope="session")
def containerd() -> Iterator[ContainerdNode]:
    """A containerd of its own."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    with asyncio.Runner() as runner:
        context = containerd_node("klt")
        node = runner.run(context.__aenter__())
        try:
            yield node
        finally:
            runner.run(context.__aexit__(None, None, None))


@pytest.fixture
def root(containerd: ContainerdNode, request: pytest.FixtureRequest) -> Path:
    """A directory for a kubelet's own things; mounts below it end with containerd's."""
    test: str = request.node.name
    path = containerd.root / "kubelets" / test.replace("[", "-").replace("]", "")[:60]
    path.mkdir(parents=True)
    return path


@pytest.fixture
async def kubelet(containerd: ContainerdNode, root: Path) -> AsyncIterator[RunningKubelet]:
    """A kubelet at work."""
    try:
        async with running_kubelet(containerd, root) as running:
            yield running
    finally:
        await end_pods(containerd)


async def end_pods(containerd: ContainerdNode) -> None:
    """Removes every pod from the runtime."""
    async with channel(containerd.endpoint) as dialled:
        runtime = GrpcRuntimeService(dialled)
        for sandbox in await runtime.list_pod_sandboxes():
            await _end_pod(runtime, sandbox.id)


async def _end_pod(runtime: GrpcRuntimeService, sandbox_id: str) -> None:
    for pause_s in (0.1, 0.2, 0.4, 0.8, 1.6):
        try:
            await runtime.stop_pod_sandbox(sandbox_id)
            await runtime.remove_pod_sandbox(sandbox_id)
            return
        except CRIError:
            # The kubelet was cancelled amid a start or stop of its own, and the runtime refuses until that is through.
            await asyncio.sleep(pause_s)
    await runtime.remove_pod_sandbox(sandbox_id)
