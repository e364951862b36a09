"""What a watch of one's own saw: every state that pods went through, for checks that must hold at each event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.integration.controller_manager.conftest import Cluster
from tiphys.api.core.v1 import pod_pb2
from tiphys_client.client import EventType
from tiphys_controller_manager.pods import PodView, pod_view

# What is wrong with the pods that there are now; empty for nothing.
Check = Callable[[list[PodView]], str]


@dataclass(slots=True)
class Seen:
    """The pods as the last event left them, the names in the order in which they came and went, and faults."""

    pods: dict[str, PodView] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    events: int = 0


@asynccontextmanager
async def watched(cluster: Cluster, check: Check = lambda pods: "") -> AsyncIterator[Seen]:
    """Follow the pods of the namespace default from now on; at the end no check may have failed."""
    seen = Seen()
    listed = await cluster.client.list(pod_pb2.Pod, "default")
    seen.pods = {pod.metadata.uid: pod_view(pod) for pod in listed.items}

    async def follow() -> None:
        events = cluster.client.watch(pod_pb2.Pod, "default", resource_version=listed.resource_version)
        async with aclosing(events) as batches:
            async for batch in batches:
                for event in batch:
                    _note(seen, event.type, event.object, check)

    task = asyncio.create_task(follow(), name="watch of the test")
    try:
        yield seen
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert not seen.faults, seen.faults[:5]


def _note(seen: Seen, kind: EventType, pod: Any, check: Check) -> None:
    if kind is EventType.BOOKMARK:
        return
    seen.events += 1
    view = pod_view(pod)
    if kind is EventType.DELETED:
        seen.pods.pop(view.uid, None)
        seen.gone.append(view.name)
    else:
        if view.uid not in seen.pods:
            seen.made.append(view.name)
        seen.pods[view.uid] = view
    fault = check(list(seen.pods.values()))
    if fault:
        seen.faults.append(f"event {seen.events}, {kind.name} of {view.name}: {fault}")


def active(pods: Iterable[PodView]) -> list[PodView]:
    """Those that count as replicas."""
    return [pod for pod in pods if pod.is_active]


def serving(pods: Iterable[PodView]) -> list[PodView]:
    """Those that answer requests."""
    return [pod for pod in pods if pod.is_active and pod.is_ready]


@asynccontextmanager
async def kubelet(cluster: Cluster) -> AsyncIterator[None]:
    """Run pods, again and again, beside the test."""

    async def work() -> None:
        while True:
            await cluster.run_pods()
            await asyncio.sleep(0.02)

    task = asyncio.create_task(work(), name="kubelet of the test")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
