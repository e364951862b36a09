"""Controllers on a server in memory, with a clock that stands still and pods that run when they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.meta import to_time
from tiphys_apimachinery.scheme import load_default
from tiphys_client.fake import FakeClient
from tiphys_client.rest import NoPaths, PathReader
from tiphys_client.shared_informers import SharedInformers
from tiphys_component.app import start_loop
from tiphys_component.clock import Clock, FakeClock
from tiphys_controller_manager.frame import Loop, Parts
from tiphys_controller_manager.options import Options
from tiphys_controller_manager.registry import controllers


@dataclass(slots=True)
class Events:
    """Keeps what controllers told."""

    seen: list[tuple[str, str, str]] = field(default_factory=list)

    def of(self, component: str) -> Events:
        """One for all."""
        return self

    def event(self, obj: Any, type: str, reason: str, message: str) -> None:
        """Note an event."""
        self.seen.append((type, reason, message))

    def reasons(self) -> list[str]:
        """The reasons, in order."""
        return [reason for _, reason, _ in self.seen]


@dataclass(slots=True)
class House:
    """A server in memory and the controllers that run on it."""

    client: FakeClient
    clock: FakeClock
    events: Events
    loops: dict[str, Loop]
    parts: Parts

    async def settle(self, rounds: int = 12) -> None:
        """Let everything come to rest without moving the clock, but for the few milliseconds of a retry."""
        for _ in range(rounds):
            await self.clock.settle()

    async def run_for(self, seconds: float) -> None:
        """Move the clock, timer by timer."""
        await self.clock.run_for(seconds)
        await self.settle()

    async def pods(self, namespace: str = "default") -> list[Any]:
        """All pods of a namespace."""
        return (await self.client.list(pod_pb2.Pod, namespace)).items

    async def all(self, cls: type[Any], namespace: str | None = None) -> list[Any]:
        """All objects of a kind."""
        return (await self.client.list(cls, namespace)).items

    async def run_pods(self, namespace: str = "default", *, node: str = "node-1") -> None:
        """Do a kubelet's work: new pods become ready, deleted ones go."""
        for pod in await self.pods(namespace):
            if pod.metadata.HasField("deletionTimestamp"):
                await self.client.delete(pod_pb2.Pod, pod.metadata.name, namespace, grace_period_s=0)
            elif pod.status.phase == "Pending":
                await self.make_ready(pod)

    async def make_ready(self, pod: Any) -> None:
        """The pod runs and is ready, now."""
        pod.status.phase = "Running"
        condition = pod.status.conditions.add(type="Ready", status="True")
        condition.lastTransitionTime.CopyFrom(to_time(self.clock.now()))
        await self.client.update_status(pod)


def options(**changes: Any) -> Options:
    """Options as without flags, but for the changes."""
    return Options(kubeconfig=Path("unused"), **changes)


@asynccontextmanager
async def house(
    *names: str,
    client: FakeClient | None = None,
    authority: str = "",
    rest: PathReader | None = None,
    **changes: Any,
) -> AsyncIterator[House]:
    """Run the named controllers on a new server in memory, or on one that is given."""
    clock = FakeClock()
    client = client or FakeClient(clock)
    made = make_parts(client, clock, authority=authority, rest=rest, **changes)
    specs = {spec.name: spec for spec in controllers(made.options)}
    loops = {name: Loop(specs[name], made) for name in names}
    async with asyncio.TaskGroup() as group:
        tasks = [start_loop(group, made.shared.run(), "informers")]
        tasks += [start_loop(group, loop.run(), loop.name) for loop in loops.values()]
        assert isinstance(made.events, Events)
        built = House(client, clock, made.events, loops, made)
        await built.settle()
        try:
            yield built
        finally:
            for task in tasks:
                task.cancel()


def make_parts(
    client: FakeClient, clock: Clock, *, authority: str = "", rest: PathReader | None = None, **changes: Any
) -> Parts:
    """What controllers share."""
    return Parts(
        client=client,
        shared=SharedInformers(client, clock),
        clock=clock,
        events=Events(),
        options=options(**changes),
        scheme=load_default(),
        authority=authority,
        rest=rest or NoPaths(),
    )


def names(objs: Sequence[Any]) -> list[str]:
    """The names of objects, sorted."""
    return sorted(obj.metadata.name for obj in objs)
