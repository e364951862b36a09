"""Figures of the API server: CPU of its process, and of its store's, for a call. Run: python -m tests.bench.api

Over TLS with a client certificate, 16 calls in flight. The pods are of 2-3 KB in JSON, as one of a Deployment is; what
is read has a status, as a running one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvloop

from tests.bench.api_server import STORES, RunningApiServer, running_api_server
from tests.bench.api_start import measure_start
from tests.bench.figures import Figure, median, print_figures, print_heading
from tests.bench.process import rss_mb, spending
from tests.bench.rest_client import Client, WatchConnection, request
from tests.bench.sample_pod import sample_pod

PODS = 5000
NODES = 1000
WATCHERS = 200
NAMESPACE = "bench"
_PODS_PATH = f"/api/v1/namespaces/{NAMESPACE}/pods"
_STATUS_PATCH = "application/strategic-merge-patch+json"
_ROUNDS = 3
# Long enough for what starts late to be over, as the first collection and the loops of the caches.
_SETTLE_S = 2.0


@dataclass(frozen=True, slots=True)
class Calls:
    """How many calls a figure is the average of, in each of the rounds."""

    gets: int = 6000
    creates: int = 1500
    patches: int = 2000
    lists: int = 20
    deliveries: int = 100


@dataclass(slots=True)
class ApiFigures:
    """Measures one server; the figures come in the order in which they were measured."""

    store: str
    server: RunningApiServer
    client: Client
    calls: Calls
    figures: list[Figure] = field(default_factory=list)

    async def measure(self) -> None:
        """All of them; the idle ones first."""
        await asyncio.sleep(_SETTLE_S)
        self._told("idle, RSS of the server", rss_mb(self.server.pid), "MB", 110)
        await self._make_namespace()
        await self._creates()
        await self._gets()
        await self._patches()
        await self._nodes()
        await self._deliveries()
        await self._lists()
        self._told("after lists and watches of them, RSS", rss_mb(self.server.pid), "MB", 200)

    async def _make_namespace(self) -> None:
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        await self.client.call(request("POST", "/api/v1/namespaces", orjson.dumps(made)), status=201)
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
        await self.client.call(request("POST", path, orjson.dumps(account)), status=201)

    async def _creates(self) -> None:
        numbers = iter(range(PODS * 10))

        def some() -> Iterator[bytes]:
            for _ in range(self.calls.creates):
                yield request("POST", _PODS_PATH, new_pod(next(numbers)))

        # Beside etcd's own, which the note tells.
        at_most = 0.6 if self.store == "sqlite" else 0.7
        await self._call_figure("create a pod of a ReplicaSet", some, self.calls.creates, at_most, 201)
        others = range(PODS, PODS + self.calls.creates)
        made = [request("POST", _PODS_PATH, new_pod(number, distinct=True)) for number in others]
        with spending(*self.server.pids()) as spent:
            await self.client.all(made, status=201)
        self._told("create a pod unlike all others", spent.cpu[0] / len(made) * 1e3, "ms")
        await self.client.all(request("DELETE", f"{_PODS_PATH}/{pod_name(number)}") for number in others)
        rest = range(next(numbers), PODS)
        await self.client.all((request("POST", _PODS_PATH, new_pod(number)) for number in rest), status=201)

    async def _gets(self) -> None:
        asked = request("GET", f"{_PODS_PATH}/{pod_name(1)}")
        await self._call_figure("GET a pod", lambda: [asked] * self.calls.gets, self.calls.gets, 0.15)

    async def _patches(self) -> None:
        rounds = iter(range(100))

        def some() -> Iterator[bytes]:
            message = f"round {next(rounds)}"
            for number in range(self.calls.patches):
                body = orjson.dumps({"status": {**running_status(), "message": message}})
                yield request("PATCH", f"{_PODS_PATH}/{pod_name(number)}/status", body, content_type=_STATUS_PATCH)

        await self._call_figure("PATCH a pod's status (strategic)", some, self.calls.patches, 0.6)

    async def _nodes(self) -> None:
        await self.client.all((request("POST", "/api/v1/nodes", new_node(n)) for n in range(NODES)), status=201)
        self._told(f"with {NODES:,} nodes and {PODS:,} pods, RSS", rss_mb(self.server.pid), "MB", 170)

    async def _deliveries(self) -> None:
        """Status patches while all watch: what the patches cost without watchers is taken off."""
        alone = await self._patch_some("alone")
        missing = WATCHERS * self.calls.deliveries
        done = asyncio.Event()

        def count(events: int) -> None:
            nonlocal missing
            missing -= events
            if missing <= 0:
                done.set()

        async with AsyncExitStack() as stack:
            await self._watch_all(stack, count)
            costs: list[float] = []
            wall_s = 0.0
            for number in range(_ROUNDS):
                missing = WATCHERS * self.calls.deliveries
                done.clear()
                with spending(*self.server.pids()) as spent:
                    await self._patch_some(f"watched {number}")
                    await asyncio.wait_for(done.wait(), 60)
                costs.append(spent.cpu[0])
                wall_s = spent.wall_s
        events = WATCHERS * self.calls.deliveries
        cost_us = (median(costs) - alone) / events * 1e6
        note = f"{events / wall_s:,.0f} per s; {median(costs) / events * 1e6:.1f} µs with the writes"
        self._told(f"watch delivery at {WATCHERS} watchers", cost_us, "µs", 20, note)

    async def _watch_all(self, stack: AsyncExitStack, count: Callable[[int], None]) -> None:
        """Open all watches from now on, and wait until each has been answered."""
        _, page = split(await self.client.call(request("GET", f"{_PODS_PATH}?limit=1")))
        path = f"{_PODS_PATH}?watch=1&resourceVersion={orjson.loads(page)['metadata']['resourceVersion']}"
        for _ in range(WATCHERS):
            connection = await self.client.open(lambda: WatchConnection(count, b'{"type":"MODIFIED"'))
            stack.callback(connection.close)
            assert isinstance(connection, WatchConnection)
            connection.start(request("GET", path))
        await asyncio.sleep(1)

    async def _patch_some(self, message: str) -> float:
        body = orjson.dumps({"status": {"message": message}})
        asked = [
            request("PATCH", f"{_PODS_PATH}/{pod_name(number)}/status", body, content_type=_STATUS_PATCH)
            for number in range(self.calls.deliveries)
        ]
        with spending(*self.server.pids()) as spent:
            await self.client.all(asked)
        return spent.cpu[0]

    async def _lists(self) -> None:
        """Every pod gets the status of a running one first; then the forms one after the other."""
        body = orjson.dumps({"status": running_status()})
        await self.client.all(
            request("PATCH", f"{_PODS_PATH}/{pod_name(number)}/status", body, content_type=_STATUS_PATCH)
            for number in range(PODS)
        )
        what = f"LIST {PODS:,} pods, "
        await self._list_figure(what + "JSON, identity", 20, "Accept: application/json")
        await self._list_figure(what + "JSON, gzip", 60, "Accept: application/json", "Accept-Encoding: gzip")
        await self._list_figure(what + "protobuf", 8, "Accept: application/vnd.kubernetes.protobuf")

    async def _list_figure(self, name: str, at_most: float | None, *headers: str) -> None:
        asked = request("GET", _PODS_PATH, b"", *headers)
        size = len(split(await self.client.call(asked))[1])
        costs: list[float] = []
        wall_s = 0.0
        for _ in range(_ROUNDS):
            with spending(*self.server.pids()) as spent:
                for _ in range(self.calls.lists):
                    await self.client.call(asked)
            costs.append(sum(spent.cpu) / self.calls.lists * 1e3)
            wall_s = spent.wall_s / self.calls.lists
        note = f"{size / 1e6:.1f} MB, {wall_s * 1e3:.0f} ms on the wall, one at a time"
        self._told(name, median(costs), "ms", at_most, note)

    async def _call_figure(
        self,
        name: str,
        some: Callable[[], Sequence[bytes] | Iterator[bytes]],
        count: int,
        at_most: float | None,
        status: int = 200,
    ) -> None:
        """The average cost of a call, in the middle one of the rounds."""
        rounds: list[tuple[float, ...]] = []
        wall_s = 0.0
        for _ in range(_ROUNDS):
            with spending(*self.server.pids()) as spent:
                await self.client.all(some(), status=status)
            rounds.append(tuple(cost / count * 1e3 for cost in spent.cpu))
            wall_s = spent.wall_s
        middle = sorted(rounds)[len(rounds) // 2]
        etcd = f"; etcd {middle[1]:.2g} ms besides" if len(middle) > 1 else ""
        self._told(name, middle[0], "ms", at_most, f"{count / wall_s:,.0f} per s{etcd}")

    def _told(self, name: str, measured: float, unit: str, at_most: float | None = None, note: str = "") -> None:
        figure = Figure(f"{self.store}: {name}", measured, unit, at_most, note)
        self.figures.append(figure)
        print_figures([figure])


def split(answer: bytes) -> tuple[bytes, bytes]:
    """Head and body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


def pod_name(number: int) -> str:
    """Of the pod with this number."""
    return f"web-7d4b9c6f5-{number:05d}"


def new_pod(number: int, *, distinct: bool = False) -> bytes:
    """A pod as a ReplicaSet makes it: what the server fills in is left out. A distinct one has a spec of its own."""
    pod = sample_pod(number)
    metadata, spec = pod["metadata"], pod["spec"]
    for name in ("uid", "resourceVersion", "creationTimestamp", "namespace"):
        del metadata[name]
    for name in ("volumes", "nodeName", "serviceAccount", "priority", "preemptionPolicy", "tolerations"):
        del spec[name]
    del spec["containers"][0]["volumeMounts"], pod["status"]
    if distinct:
        spec["containers"][0]["env"].append({"name": "NUMBER", "value": str(number)})
    return orjson.dumps(pod)


def new_node(number: int) -> bytes:
    """A node as its kubelet registers it, with the status that it then keeps."""
    name = f"node-{number:04d}"
    amounts = {"cpu": "4", "memory": "32Gi", "pods": "110", "ephemeral-storage": "100Gi"}
    conditions = [
        {"type": kind, "status": "False", "reason": f"KubeletHasNo{kind}", "message": f"kubelet has no {kind}"}
        for kind in ("MemoryPressure", "DiskPressure", "PIDPressure")
    ]
    status = {
        "capacity": amounts,
        "allocatable": amounts,
        "conditions": [*conditions, {"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        "addresses": [{"type": "InternalIP", "address": "198.18.0.1"}, {"type": "Hostname", "address": name}],
    }
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "topology.kubernetes.io/zone": "a"}
    return orjson.dumps({"metadata": {"name": name, "labels": labels}, "spec": {}, "status": status})


def running_status() -> dict[str, Any]:
    """The status of a running pod."""
    status: dict[str, Any] = sample_pod()["status"]
    return status


async def measure_api(stores: Sequence[str] = STORES, calls: Calls = Calls()) -> list[Figure]:
    """All figures over each store, printed as they come."""
    figures: list[Figure] = []
    for store in stores:
        figures += measure_start(store)
        with running_api_server(store) as server:
            async with Client(server.port, server.tls).connected() as client:
                measured = ApiFigures(store, server, client, calls)
                await measured.measure()
                figures += measured.figures
    return figures


if __name__ == "__main__":
    print_heading()
    uvloop.run(measure_api())
