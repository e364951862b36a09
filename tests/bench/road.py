"""A cluster's nodes and pods made through a real API server, and the wait until the last of them is bound and told of.

For the benchmark, where server and scheduler are processes, and for the test that runs it in small.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeVar

from google.protobuf.message import Message

from tests.bench.pod_shapes import hopeless
from tests.bench.road_workloads import RoadWorkload
from tiphys.api.core.v1.event_pb2 import Event
from tiphys.api.core.v1.namespace_pb2 import Namespace
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.service_account_pb2 import ServiceAccount
from tiphys.api.scheduling.v1.scheduling_pb2 import PriorityClass
from tiphys_apimachinery.errors import APIError
from tiphys_client.client import Bind, Client, EventType, WatchEvent

MessageT = TypeVar("MessageT", bound=Message)
ItemT = TypeVar("ItemT")

_BATCH = 250
_CALLS_IN_FLIGHT = 4
_CHURN_S = 1.0
# Without it upstream's nodes would never be ready: nobody here is a kubelet. So does upstream's benchmark.
SERVER_FLAGS = ("--disable-admission-plugins=TaintNodesByCondition",)


@dataclass(slots=True)
class Progress:
    """What a watcher has seen: nodes by pod, and the pods of which an Event says that they are scheduled.

    A batch is kept as it came, with its time, until somebody looks: reading it takes from the cores of those measured.
    """

    unread: deque[tuple[float, bool, list[WatchEvent[Any]]]] = field(default_factory=deque)
    unread_count: int = 0
    bound: dict[str, str] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    moved: list[str] = field(default_factory=list)
    last_bound_at: float = 0.0
    last_told_at: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def keep(self, batch: list[WatchEvent[Any]], *, is_of_pods: bool) -> None:
        """A batch of a watch has come."""
        self.unread.append((perf_counter(), is_of_pods, batch))
        self.unread_count += len(batch)
        self.changed.set()

    def read(self) -> None:
        """Look at all that has come."""
        while self.unread:
            at, is_of_pods, batch = self.unread.popleft()
            self.unread_count -= len(batch)
            for event in batch:
                if event.type not in (EventType.BOOKMARK, EventType.DELETED):
                    (self._see_pod if is_of_pods else self._see_event)(event.object, at)

    def _see_pod(self, pod: Pod, at: float) -> None:
        key, node = f"{pod.metadata.namespace}/{pod.metadata.name}", pod.spec.nodeName
        if not node:
            return
        known = self.bound.setdefault(key, node)
        if known != node:
            self.moved.append(key)
        self.last_bound_at = at

    def _see_event(self, event: Event, at: float) -> None:
        if event.reason == "Scheduled":
            self.told.add(f"{event.involvedObject.namespace}/{event.involvedObject.name}")
            self.last_told_at = at


class Road:
    """One workload on one server, through an administrator's client."""

    def __init__(self, client: Client, work: RoadWorkload) -> None:
        self._client, self._work = client, work
        self.measured: set[str] = set()

    async def prepare(self) -> None:
        """Nodes, the pods that are bound before, and those to be measured."""
        work = self._work
        before = [self._named(shape(number), f"before{kind}-{number}")
                  for kind, (shape, count) in enumerate(work.before) for number in range(count)]  # fmt: skip
        measured = [self._named(work.measured(number), f"p{number}") for number in range(work.count)]
        await self._make_surroundings(pod.metadata.namespace for pod in (*before, *measured))
        await self._create(work.node(number) for number in range(work.nodes))
        await self._create(before)
        await self._bind(before)
        await self._create(hopeless(number) for number in range(work.hopeless))
        await self._create(measured)
        self.measured = {f"{pod.metadata.namespace}/{pod.metadata.name}" for pod in measured}

    async def _make_surroundings(self, namespaces: Iterable[str]) -> None:
        for name in sorted({"default", *namespaces}):
            namespace = Namespace()
            namespace.metadata.name, namespace.metadata.labels["team"] = name, "devops"
            if name != "default":
                await self._client.create(namespace)
            account = ServiceAccount(automountServiceAccountToken=False)
            account.metadata.name, account.metadata.namespace = "default", name
            await self._client.create(account)
        for name, value in (("low", 1), ("high", 10)):
            priority = PriorityClass(value=value)
            priority.metadata.name = name
            await self._client.create(priority)

    @staticmethod
    def _named(pod: Pod, name: str) -> Pod:
        pod.metadata.name = name
        pod.metadata.ClearField("uid")
        return pod

    async def _create(self, objects: Iterable[MessageT]) -> None:
        by_namespace: dict[str, list[MessageT]] = {}
        for obj in objects:
            by_namespace.setdefault(obj.metadata.namespace, []).append(obj)  # type: ignore[attr-defined]
        batches = [batch for same in by_namespace.values() for batch in _batches(same)]
        await _side_by_side(batches, self._create_batch)

    async def _create_batch(self, batch: Sequence[Message]) -> None:
        _check(await self._client.batch_create(batch))

    async def _bind(self, pods: Sequence[Pod]) -> None:
        binds = [Bind(pod.metadata.namespace, pod.metadata.name, f"n{number % self._work.nodes}")
                 for number, pod in enumerate(pods)]  # fmt: skip

        async def bind(batch: Sequence[Bind]) -> None:
            _check(await self._client.bind(batch))

        await _side_by_side(_batches(binds), bind)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Progress]:
        """Follow pods and Events while the block runs."""
        progress = Progress()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._follow(Pod, progress), name="watch pods"),
                group.create_task(self._follow(Event, progress), name="watch events"),
            ]
            if self._work.churn:
                tasks.append(group.create_task(self._churn(), name="churn"))
            try:
                yield progress
            finally:
                for task in tasks:
                    task.cancel()

    async def _follow(self, cls: type[Pod] | type[Event], progress: Progress) -> None:
        version = (await self._client.list(cls, limit=1)).resource_version
        async with aclosing(self._client.watch(cls, resource_version=version)) as batches:
            async for batch in batches:
                progress.keep(batch, is_of_pods=cls is Pod)

    async def _churn(self) -> None:
        """A node and a pod that fits nowhere come and go, once a second."""
        number = self._work.nodes
        while True:
            pod = hopeless(number)
            await self._client.create(self._work.node(number))
            await self._client.create(pod)
            await asyncio.sleep(_CHURN_S)
            await self._client.delete(Pod, pod.metadata.name, pod.metadata.namespace)
            await self._client.delete(Node, f"n{number}")
            number += 1

    async def wait_done(self, progress: Progress, timeout_s: float) -> None:
        """Return when all pods that are measured are bound and told of. Raises TimeoutError."""
        try:
            async with asyncio.timeout(timeout_s):
                while (missing := self._missing(progress)) > 0:
                    # Before so much has come it can't be all.
                    while progress.unread_count < missing:
                        progress.changed.clear()
                        await progress.changed.wait()
                    progress.read()
        except TimeoutError as err:
            progress.read()
            bound, told = len(self.measured & progress.bound.keys()), len(self.measured & progress.told)
            raise TimeoutError(f"{self._work.name}: {bound} bound, {told} told of {len(self.measured)}") from err
        if progress.moved:
            raise RuntimeError(f"{self._work.name}: on another node than before: {progress.moved[:3]}")

    def _missing(self, progress: Progress) -> int:
        """How many changes at least have not been read yet: each pod is bound once and told of once."""
        return len(self.measured - progress.bound.keys()) + len(self.measured - progress.told)


def _batches(items: list[ItemT]) -> list[list[ItemT]]:
    return [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]


async def _side_by_side(batches: Sequence[object], work: Callable[..., Awaitable[None]]) -> None:
    left = iter(batches)

    async def some() -> None:
        for batch in left:
            await work(batch)

    async with asyncio.TaskGroup() as group:
        for _ in range(_CALLS_IN_FLIGHT):
            group.create_task(some())


def _check(results: Sequence[object]) -> None:
    failed = [result for result in results if isinstance(result, APIError)]
    if failed:
        raise failed[0]
