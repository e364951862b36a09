"""What stands on the Client - informer, leader election, recorder - against each server."""

import asyncio
from typing import Any

from tests.conformance.client.conftest import Subject
from tests.conformance.client.test_objects import config_map, pod
from tiphys.api.coordination.v1.coordination_pb2 import Lease
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.event_pb2 import Event
from tiphys_client.informer import Informer
from tiphys_client.leader_election import LeaderElector
from tiphys_client.recorder import EventRecorder
from tiphys_component.clock import SystemClock


async def test_A11_informer_loses_and_doubles_nothing_over_broken_connections(subject: Subject) -> None:
    informer: Informer[ConfigMap, Any] = Informer(subject.client, ConfigMap, subject.namespace, clock=SystemClock())
    heard: list[str] = []
    arrived = asyncio.Event()

    def hear(name: str) -> None:
        heard.append(name)
        arrived.set()

    informer.add_handler(
        on_add=lambda obj: hear(f"add {obj.metadata.name}"),
        on_update=lambda _old, obj: hear(f"update {obj.metadata.name}"),
        on_delete=lambda obj: hear(f"delete {obj.metadata.name}"),
    )
    expected: list[str] = []
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(informer.run())
        await informer.wait_synced()
        heard.clear()
        for number in range(8):
            name = f"c{number}"
            await subject.client.create(config_map(subject, name))
            await subject.break_watches()
            await subject.client.patch(ConfigMap, name, subject.namespace, {"data": {"k": "v"}})
            await subject.client.delete(ConfigMap, name, subject.namespace)
            expected += [f"add {name}", f"update {name}", f"delete {name}"]
        while len(heard) < len(expected):
            arrived.clear()
            await arrived.wait()
        task.cancel()
    assert heard == expected
    assert informer.reflector.lists == 1


async def test_A51_leader_takes_renews_and_gives_back_its_lease(subject: Subject) -> None:
    elector = LeaderElector(
        subject.client, name="test", namespace=subject.namespace, identity="one", clock=SystemClock()
    )
    led: list[str] = []

    async def lead() -> None:
        lease = await subject.client.get(Lease, "test", subject.namespace)
        led.append(lease.spec.holderIdentity)

    async with asyncio.timeout(5):
        await elector.run(lead)
        await elector.run(lead)
    assert led == ["one", "one"]
    lease = await subject.client.get(Lease, "test", subject.namespace)
    assert lease.spec.holderIdentity == ""


async def test_recorded_event_is_stored_and_counted(subject: Subject) -> None:
    target = await subject.client.create(pod(subject, "web"))
    recorder = EventRecorder(subject.client, "kubelet", clock=SystemClock(), host="n1")
    for count in (1, 2):
        recorder.event(target, "Warning", "BackOff", "restarting", field_path="spec.containers{main}")
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            task = group.create_task(recorder.run())
            found = await _events(subject, count)
            task.cancel()
        assert [(item.reason, item.count, item.source.component) for item in found] == [("BackOff", count, "kubelet")]
    assert recorder.dropped == 0


async def _events(subject: Subject, count: int) -> list[Event]:
    """The events about the pod, once one of them has been seen so often."""
    selector = "involvedObject.name=web,involvedObject.kind=Pod"
    while True:
        found = (await subject.client.list(Event, subject.namespace, field_selector=selector)).items
        if any(item.count == count for item in found):
            return found
        await asyncio.sleep(0.01)
