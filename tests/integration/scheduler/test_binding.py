"""Binding through a real API server: each pod once, whoever dies or races on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.integration.controller_manager.conftest import config_of, issue
from tests.support.apiserver import RunningServer, running_server
from tests.unit.scheduler.objects import node, pod_message
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.service_account_pb2 import ServiceAccount
from tiphys_apimachinery.errors import APIError, Conflict
from tiphys_client.client import Bind, Client, EventType
from tiphys_client.transport import GrpcTransport, Transport
from tiphys_scheduler.main import SchedulerService
from tiphys_scheduler.options import Options

USER = "system:kube-scheduler"
_PATIENCE_S = 60.0
_CREATED_AT_ONCE = 200
# So many pods wait at most for the two: server, schedulers and test share a processor.
_MOST_WAITING = 2_000


class HeldTransport(Transport):
    """Lets every call through but the first binding, where it stays until its scheduler dies.

    after says whether the server hears of the binding before that.
    """

    def __init__(self, inner: Transport, *, after: bool) -> None:
        self._inner, self._after = inner, after
        self.reached = asyncio.Event()

    async def unary(self, service: str, method: str, request: bytes, *, timeout_s: float = 30.0) -> bytes:
        if method != "BatchBind":
            return await self._inner.unary(service, method, request, timeout_s=timeout_s)
        if self._after:
            await self._inner.unary(service, method, request, timeout_s=timeout_s)
        self.reached.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable")

    def stream(
        self, service: str, method: str, request: bytes, *, timeout_s: float | None = None
    ) -> AsyncGenerator[bytes]:
        return self._inner.stream(service, method, request, timeout_s=timeout_s)

    async def close(self) -> None:
        await self._inner.close()


@asynccontextmanager
async def scheduler(server: RunningServer, transport: Transport | None = None) -> AsyncIterator[None]:
    """A scheduler of its own identity, killed at the end."""
    options = Options(kubeconfig=Path("unused"), secure_port=0, grpc_port=0, leader_elect=False)
    service = SchedulerService(options, transport=transport or GrpcTransport(config_of(server, USER)))
    task = asyncio.create_task(service.run(), name="scheduler")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def cluster(nodes: int = 3) -> AsyncIterator[tuple[RunningServer, Client]]:
    """A server with nodes, and an administrator's client."""
    async with running_server() as server:
        issue(server, USER)
        client = Client(GrpcTransport(config_of(server, "admin")))
        try:
            for namespace in ("default", "kube-system"):
                account = ServiceAccount()
                account.metadata.name, account.metadata.namespace = "default", namespace
                await client.create(account)
            for number in range(nodes):
                message = node(f"n{number}", cpu="64", pods="500")
                created = await client.create(message)
                # New nodes are tainted until they are ready.
                del created.spec.taints[:]
                created = await client.update(created)
                created.status.MergeFrom(message.status)
                await client.update_status(created)
            yield server, client
        finally:
            await client.close()


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while not await what():  # noqa: ASYNC110 - what is waited for is in other hands
            await asyncio.sleep(0.02)


@asynccontextmanager
async def nodes_seen(client: Client) -> AsyncIterator[dict[str, list[str]]]:
    """Every node that each pod was ever on, in order."""
    seen: dict[str, list[str]] = {}
    start = (await client.list(Pod, "default")).resource_version

    async def follow() -> None:
        async for events in client.watch(Pod, "default", resource_version=start):
            for event in events:
                at = event.object.spec.nodeName
                if (
                    event.type is not EventType.BOOKMARK
                    and at
                    and seen.get(event.object.metadata.name, [])[-1:] != [at]
                ):
                    seen.setdefault(event.object.metadata.name, []).append(at)

    task = asyncio.create_task(follow(), name="watch")
    try:
        yield seen
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("after", [False, True], ids=["before the server hears of it", "before its answer is read"])
async def test_C11_a_scheduler_killed_while_it_binds_leaves_each_pod_bound_exactly_once(after: bool) -> None:
    async with cluster() as (server, client), nodes_seen(client) as seen:
        for number in range(5):
            await client.create(pod_message(f"p{number}", cpu="1"))
        held = HeldTransport(GrpcTransport(config_of(server, USER)), after=after)
        async with scheduler(server, held), asyncio.timeout(_PATIENCE_S):
            await held.reached.wait()
        async with scheduler(server):
            await until(lambda: _all_bound(client, 5))
            await client.create(pod_message("last", cpu="1"))
            await until(lambda: _all_bound(client, 6))
        assert {len(nodes) for nodes in seen.values()} == {1}
        assert len(seen) == 6


async def _all_bound(client: Client, count: int) -> bool:
    pods = (await client.list(Pod, "default")).items
    return len(pods) == count and all(pod.spec.nodeName for pod in pods)


async def test_C11_a_second_binding_is_refused_and_changes_nothing() -> None:
    async with cluster() as (_, client):
        created = await client.create(pod_message("p"))
        bind = Bind("default", "p", "n0", created.metadata.uid)
        assert await client.bind([bind]) == [None]
        (error,) = await client.bind([Bind("default", "p", "n1", created.metadata.uid)])
        assert isinstance(error, Conflict)
        assert error.code == 409
        stored = await client.get(Pod, "p", "default")
        assert stored.spec.nodeName == "n0"
        scheduled = next(c for c in stored.status.conditions if c.type == "PodScheduled")
        assert scheduled.status == "True"


@pytest.mark.parametrize(
    ("count", "nodes"),
    [
        pytest.param(1_000, 4, id="1,000 pods"),
        pytest.param(100_000, 250, id="100,000 pods", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
async def test_C27_two_schedulers_that_race_for_the_same_pods_bind_none_twice(count: int, nodes: int) -> None:
    async with cluster(nodes=nodes) as (server, client), nodes_seen(client) as seen:
        async with scheduler(server), scheduler(server):
            for start in range(0, count, _CREATED_AT_ONCE):
                await _until_seen(seen, start - _MOST_WAITING)
                pods = [pod_message(f"p{number}", cpu="100m") for number in range(start, start + _CREATED_AT_ONCE)]
                made = await client.batch_create(pods)
                assert not [one for one in made if isinstance(one, APIError)]
            await _until_seen(seen, count)
        assert {len(at) for at in seen.values()} == {1}
        # What the server keeps says the same as what it told meanwhile.
        stored = (await client.list(Pod, "default")).items
        assert {pod.metadata.name: [pod.spec.nodeName] for pod in stored} == seen


async def _until_seen(seen: dict[str, list[str]], count: int) -> None:
    """Wait for so many, for as long as there come more: how fast they come is the machine's affair."""
    while (before := len(seen)) < count:
        async with asyncio.timeout(_PATIENCE_S):
            while len(seen) == before:  # noqa: ASYNC110 - what is waited for is in other hands
                await asyncio.sleep(0.02)


async def test_C19_preemption_through_a_real_server() -> None:
    async with cluster(nodes=1) as (server, client), scheduler(server):
        for number in range(2):
            await client.create(pod_message(f"low{number}", cpu="32", priority=0))
        await until(lambda: _all_bound(client, 2))
        vip = pod_message("vip", cpu="32")
        # A class that every cluster has.
        vip.metadata.namespace = "kube-system"
        vip.spec.priorityClassName = "system-cluster-critical"
        await client.create(vip)
        await until(lambda: _is_ending(client))
        ending = [
            pod for pod in (await client.list(Pod, "default")).items if pod.metadata.HasField("deletionTimestamp")
        ]
        assert len(ending) == 1
        condition = next(c for c in ending[0].status.conditions if c.type == "DisruptionTarget")
        assert condition.reason == "PreemptionByScheduler"
        await client.delete(Pod, ending[0].metadata.name, "default", grace_period_s=0)
        await until(lambda: _is_bound(client, "vip", "kube-system"))


async def _is_ending(client: Client) -> bool:
    return any(pod.metadata.HasField("deletionTimestamp") for pod in (await client.list(Pod, "default")).items)


async def _is_bound(client: Client, name: str, namespace: str) -> bool:
    return bool((await client.get(Pod, name, namespace)).spec.nodeName)


async def test_C24_the_api_says_that_a_gated_pod_is_gated_and_without_its_gate_it_goes() -> None:
    async with cluster() as (server, client), scheduler(server):
        gated = pod_message("gated")
        gated.spec.schedulingGates.add(name="example.com/wait")
        created = await client.create(gated)
        condition = next(c for c in created.status.conditions if c.type == "PodScheduled")
        assert (condition.status, condition.reason) == ("False", "SchedulingGated")
        await client.create(pod_message("free"))
        await until(lambda: _is_bound(client, "free", "default"))
        assert not await _is_bound(client, "gated", "default")
        await client.patch(Pod, "gated", "default", {"spec": {"schedulingGates": None}})
        await until(lambda: _is_bound(client, "gated", "default"))
