"""The picture of the runtime, when calls overlap."""

from __future__ import annotations

import asyncio

from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_component.clock import FakeClock
from tiphys_cri.fake import FakeRuntime
from tiphys_kubelet.pleg import PodLifecycle
from tiphys_kubelet.runtime import labels

UID = "uid-1"


class HesitantRuntime(FakeRuntime):
    """A runtime whose answers about containers wait until they are let go."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.asked = asyncio.Event()
        self.let_go = asyncio.Event()

    async def container_status(self, container_id: str) -> cri.ContainerStatus:
        """Waits, then answers."""
        self.asked.set()
        await self.let_go.wait()
        return await super().container_status(container_id)


async def test_a_container_may_be_forgotten_while_the_runtime_is_asked_about_it() -> None:
    clock = FakeClock()
    runtime = HesitantRuntime(clock)
    runtime.let_go.set()
    lifecycle = PodLifecycle(runtime, clock, lambda uid: None)
    config = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name="web", uid=UID), labels={labels.POD_UID: UID})
    sandbox_id = await runtime.run_pod_sandbox(config)
    container = cri.ContainerConfig(metadata=cri.ContainerMetadata(name="app"), labels={labels.POD_UID: UID})
    container_id = await runtime.create_container(sandbox_id, container, config)
    await lifecycle.relist()
    assert [c.id for c in lifecycle.observation(UID).containers] == [container_id]

    runtime.let_go.clear()
    runtime.asked.clear()
    await runtime.remove_container(container_id)
    # As after the runtime's event of the removal, which comes before the call of the removal returns.
    asking = asyncio.create_task(lifecycle.refresh_container(container_id))
    await runtime.asked.wait()
    lifecycle.forget_container(container_id)
    runtime.let_go.set()
    await asking
    assert lifecycle.observation(UID).containers == ()
    assert [box.id for box in lifecycle.observation(UID).sandboxes] == [sandbox_id]
