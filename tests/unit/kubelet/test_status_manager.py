"""Pod statuses as they are kept true, whoever else writes to them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tiphys.api.core.v1.pod_pb2 import Pod, PodCondition, PodStatus
from tiphys_apimachinery.meta import find_condition
from tiphys_client.fake import FakeClient
from tiphys_component.clock import FakeClock
from tiphys_kubelet.status_manager import StatusManager, overruled


def status(ready: str = "True", **others: str) -> PodStatus:
    made = PodStatus(phase="Running")
    for kind, value in {"Ready": ready, **others}.items():
        made.conditions.add(type=kind, status=value)
    return made


@pytest.mark.parametrize(
    ("seen", "ready"),
    [
        pytest.param(status("False"), "False", id="taken away"),
        pytest.param(status("True"), None, id="as we wrote it"),
        pytest.param(status("True", DisruptionTarget="True"), None, id="what is not ours"),
        pytest.param(PodStatus(), None, id="nothing yet"),
    ],
)
def test_B24_only_our_own_conditions_can_be_overruled(seen: PodStatus, ready: str | None) -> None:
    found = overruled(status("True"), seen)
    condition: Any = find_condition(found.conditions, "Ready") if found is not None else None
    assert (condition.status if condition is not None else None) == ready


async def test_B24_a_pod_that_was_called_not_ready_with_its_node_is_called_ready_again() -> None:
    clock = FakeClock()
    client = FakeClient(clock)
    pod = Pod()
    pod.metadata.name, pod.metadata.namespace = "p", "default"
    created: Any = await client.create(pod)
    manager = StatusManager(client, clock)
    task = asyncio.create_task(manager.run(), name="status manager")

    async def stored() -> Pod:
        for _ in range(10):
            await clock.settle()
        return client.stored(Pod, "p", "default")

    def condition(obj: Pod) -> PodCondition:
        found = find_condition(obj.status.conditions, "Ready")
        assert isinstance(found, PodCondition)
        return found

    def ready(obj: Pod) -> str:
        return condition(obj).status

    try:
        manager.set(created, status())
        before = await stored()
        assert ready(before) == "True"
        condition(before).status = "False"
        taken = await client.update_status(before)
        # The echo of our own write comes late: it overrules nothing.
        writes = len(client.writes())
        manager.set(created, status())
        assert ready(await stored()) == "False"
        assert len(client.writes()) == writes
        manager.set(taken, status())
        assert ready(await stored()) == "True"
        assert len(client.writes()) == writes + 1
    finally:
        task.cancel()
        await asyncio.wait([task])
