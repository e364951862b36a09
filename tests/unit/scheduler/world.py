"""The whole cycle against an API server in memory, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.promptness import PROMPTLY_S
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_client.fake import FakeClient
from tiphys_client.informer import Informer
from tiphys_component.clock import FakeClock
from tiphys_component.metrics import Registry
from tiphys_scheduler.budgets import budget_informer
from tiphys_scheduler.dynamic_resources.support import DeviceSupport
from tiphys_scheduler.pod_info import PodInfo, pod_info
from tiphys_scheduler.scheduler import Scheduler
from tiphys_scheduler.surroundings import Surroundings
from tiphys_scheduler.volumes import storage_informers


@dataclass
class Events:
    """What users were told, with the name of the pod."""

    seen: list[tuple[str, str, str]] = field(default_factory=list)

    def event(self, pod: PodInfo, kind: str, reason: str, message: str) -> None:
        self.seen.append((pod.name, reason, message))


@dataclass
class World:
    client: FakeClient
    clock: FakeClock
    events: Events
    scheduler: Scheduler
    registry: Registry

    async def until(self, is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PROMPTLY_S):
            while not is_true():  # noqa: ASYNC110 - what is waited for is in another task's hands
                await asyncio.sleep(0)

    def node_of(self, name: str) -> str:
        found = self.client.find_stored(Pod, name, "default")
        return found.spec.nodeName if found is not None else ""

    def place_of(self, name: str) -> str:
        """The queue that the pod waits in; empty where it does not wait."""
        return next((w.place for w in self.scheduler.queue.snapshot() if w.pod.name == name), "")


@asynccontextmanager
async def world(*seed: object, **arguments: Any) -> AsyncIterator[World]:
    """A scheduler at work; arguments are its own."""
    clock, events, registry = FakeClock(), Events(), Registry()
    client = FakeClient(clock)
    client.seed(*seed)
    nodes: Informer[Node, object] = Informer(client, Node, clock=clock)
    pods: Informer[Pod, PodInfo] = Informer(client, Pod, clock=clock, projection=pod_info)
    storage = storage_informers(client, clock)
    budgets = budget_informer(client, clock)
    surroundings = Surroundings(client, clock)

    devices = DeviceSupport(client, clock)
    scheduler = Scheduler(
        client,
        nodes,
        pods,
        clock=clock,
        events=events,
        registry=registry,
        storage=storage,
        budgets=budgets,
        surroundings=surroundings,
        devices=devices,
        **arguments,
    )
    informers: tuple[Informer[Any, Any], ...] = (
        nodes,
        pods,
        budgets,
        *storage.all(),
        *surroundings.all(),
        *devices.all(),
    )
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in (*(item.run() for item in informers), scheduler.run())]
        yield World(client, clock, events, scheduler, registry)
        for task in tasks:
            task.cancel()
