"""The whole road of a scheduled pod: API server, store and scheduler as processes, with TLS, RBAC and a durable store.

Run: python -m tests.bench.scheduler_road [--store sqlite] [name …]. Nodes and pods are there before, through the API;
the scheduler knows them and waits for its Lease. Timed from the moment it has the Lease until every pod is bound and
every Scheduled Event written, as a watcher sees them. The CPU time of each process for a pod says what two cores that
do nothing else would reach: the slower of the two goes alone on one.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import uvloop

from tests.bench.api_server import STORES, RunningApiServer, free_port, running_api_server, stop
from tests.bench.figures import Figure, number, print_figures, print_heading, skipped
from tests.bench.pod_shapes import basic
from tests.bench.process import Spent, environment, rss_mb, spending
from tests.bench.road import SERVER_FLAGS, Progress, Road
from tests.bench.road_workloads import ETCD_SHARE, ROAD, RoadWorkload
from tests.support.apiserver import shared_pki
from tiphys.api.coordination.v1.coordination_pb2 import Lease
from tiphys_client import kubeconfig
from tiphys_client.client import Client
from tiphys_client.kubeconfig import ClientConfig
from tiphys_client.transport import GrpcTransport
from tiphys_component.tls import CertificateAuthority

_USER = "system:kube-scheduler"
_HOLDER = "benchmark"
_SYNC_TIMEOUT_S = 120.0
_DONE_TIMEOUT_S = 300.0
_SETTLE_S = 1.0
_SINGLE_PODS = 300
_MOST_MB = 300


@dataclass(frozen=True, slots=True)
class Scheduler:
    """A scheduler process that knows the cluster and waits for its Lease."""

    pid: int


def config_of(server: RunningApiServer, user: str) -> ClientConfig:
    """How a user reaches the server."""
    folder = shared_pki().folder
    if not (folder / f"{user}.crt").exists():
        authority = CertificateAuthority.load(folder / "ca.crt", folder / "ca.key")
        authority.issue(user, client=True).write(folder / f"{user}.crt", folder / f"{user}.key")
    return ClientConfig(
        server_url=f"https://127.0.0.1:{server.port}",
        grpc_address=f"127.0.0.1:{server.grpc_port}",
        ca_pem=(folder / "ca.crt").read_bytes(),
        cert_pem=(folder / f"{user}.crt").read_bytes(),
        key_pem=(folder / f"{user}.key").read_bytes(),
    )


@contextmanager
def _scheduler_process(server: RunningApiServer) -> Iterator[tuple[int, int]]:
    """The process and the port of its health."""
    with TemporaryDirectory(prefix="tiphys-bench-") as folder:
        path, port = Path(folder) / "kubeconfig", free_port()
        kubeconfig.write(path, config_of(server, _USER), user=_USER)
        command = [sys.executable, "-m", "tiphys_scheduler", f"--kubeconfig={path}", f"--secure-port={port}",
                   f"--grpc-port={free_port()}", "--log-level=warning"]  # fmt: skip
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment())
            try:
                yield process.pid, port
            finally:
                stop(process)
                if said := (Path(folder) / "log").read_text():
                    sys.stderr.write(f"scheduler: {said[-2000:]}\n")


@asynccontextmanager
async def waiting_scheduler(server: RunningApiServer, client: Client) -> AsyncIterator[Scheduler]:
    """A scheduler that has seen all nodes and pods, and that another holds off."""
    lease = Lease()
    lease.metadata.namespace, lease.metadata.name = "kube-system", "kube-scheduler"
    lease.spec.holderIdentity, lease.spec.leaseDurationSeconds = _HOLDER, 3600
    await client.create(lease)
    with _scheduler_process(server) as (pid, port):
        async with asyncio.timeout(_SYNC_TIMEOUT_S):
            while not await _is_ready(port):  # noqa: ASYNC110 - a process outside
                await asyncio.sleep(0.05)
        await asyncio.sleep(_SETTLE_S)
        yield Scheduler(pid)


async def _is_ready(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return b" 200 " in answer[:64]


async def unleash(client: Client) -> float:
    """Give the Lease up; when the scheduler has it."""
    lease = await client.get(Lease, "kube-scheduler", "kube-system")
    lease.spec.holderIdentity = ""
    lease = await client.update(lease)
    async for batch in client.watch(Lease, "kube-system", resource_version=lease.metadata.resourceVersion):
        if any(event.object.spec.holderIdentity not in ("", _HOLDER) for event in batch):
            return perf_counter()
    raise RuntimeError("the watch of the Lease ended")


async def measure_workload(work: RoadWorkload, store: str) -> Figure:
    """One workload over one store."""
    with running_api_server(store, None, *SERVER_FLAGS) as server:
        client = Client(GrpcTransport(config_of(server, "admin")), timeout_s=120.0)
        try:
            road = Road(client, work)
            await road.prepare()
            async with waiting_scheduler(server, client) as scheduler, road.watched() as progress:
                try:
                    with spending(scheduler.pid, *server.pids()) as spent:
                        began = await unleash(client)
                        await road.wait_done(progress, _DONE_TIMEOUT_S)
                except TimeoutError as err:
                    return skipped(f"{store}: {work.name}", str(err), "per s")
                wall_s = max(progress.last_bound_at, progress.last_told_at) - began
        finally:
            await client.close()
    return _figure(work, store, wall_s, spent)


def _figure(work: RoadWorkload, store: str, wall_s: float, spent: Spent) -> Figure:
    required = work.required and work.required * (1 if store == "sqlite" else ETCD_SHARE)
    each = [cpu / work.count * 1e6 for cpu in spent.cpu]
    parts = [f"{one:.0f} {who}" for one, who in zip(each, ("scheduler", "API server", "etcd"), strict=False)]
    note = f"CPU µs a pod: {', '.join(parts)}: {number(1e6 / max(each[0], each[1]))} per s on quiet cores"
    if work.gate:
        note = f"upstream's gate {work.gate:g}; {note}"
    return Figure(f"{store}: {work.name}", work.count / wall_s, "per s", note=note, at_least=required)


async def measure_single(store: str = "sqlite") -> Figure:
    """How long one pod takes on an idle cluster."""
    work = RoadWorkload("one pod", basic, 0)
    with running_api_server(store, None, *SERVER_FLAGS) as server:
        client = Client(GrpcTransport(config_of(server, "admin")))
        try:
            road = Road(client, work)
            await road.prepare()
            async with waiting_scheduler(server, client), road.watched() as progress:
                await unleash(client)
                times_ms = sorted([await _single_ms(client, progress, one) for one in range(_SINGLE_PODS)])
        finally:
            await client.close()
    note = f"median {times_ms[len(times_ms) // 2]:.1f} ms, of {_SINGLE_PODS}; from the answer of its creation"
    return Figure("one pod on 5,000 idle nodes, p99", times_ms[len(times_ms) * 99 // 100], "ms", 10, note)


async def _single_ms(client: Client, progress: Progress, one: int) -> float:
    pod = basic(one)
    pod.metadata.ClearField("uid")
    await client.create(pod)
    began = perf_counter()
    key = f"{pod.metadata.namespace}/{pod.metadata.name}"
    async with asyncio.timeout(10):
        while key not in progress.bound:
            progress.changed.clear()
            await progress.changed.wait()
            progress.read()
    took_ms = (perf_counter() - began) * 1e3
    # The Event of the one before is not this one's.
    await asyncio.sleep(0.01)
    return took_ms


async def measure_memory() -> Figure:
    """What the scheduler takes at 5,000 nodes and 50,000 pods, all of them placed by it."""
    work = RoadWorkload("memory", basic, 50_000)
    with running_api_server("sqlite", None, *SERVER_FLAGS) as server:
        client = Client(GrpcTransport(config_of(server, "admin")), timeout_s=120.0)
        try:
            road = Road(client, work)
            await road.prepare()
            async with waiting_scheduler(server, client) as scheduler, road.watched() as progress:
                before_mb = rss_mb(scheduler.pid)
                await unleash(client)
                await road.wait_done(progress, _DONE_TIMEOUT_S)
                after_mb = rss_mb(scheduler.pid)
        finally:
            await client.close()
    note = f"{before_mb:.0f} before it placed them"
    return Figure("scheduler at 5,000 nodes and 50,000 pods, RSS", after_mb, "MB", _MOST_MB, note)


def measure_scheduler_road(stores: Sequence[str], wanted: Sequence[str] = ()) -> Iterator[Figure]:
    """Every workload, or those whose names hold one of the words; over etcd those for which a rate is required."""
    for store in stores:
        for work in ROAD:
            if (not wanted or any(word in work.name for word in wanted)) and (store == "sqlite" or work.required):
                yield uvloop.run(measure_workload(work, store))
    if "sqlite" in stores:
        for name, measure in (("single", measure_single), ("memory", measure_memory)):
            if not wanted or name in wanted:
                yield uvloop.run(measure())


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scheduler_road", description=__doc__)
    parser.add_argument("--store", choices=STORES, action="append", help="store behind the API server; both by default")
    parser.add_argument("name", nargs="*", help="words of names of workloads, single or memory; all by default")
    options = parser.parse_args(argv)
    print_heading()
    for figure in measure_scheduler_road(options.store or STORES, options.name):
        print_figures([figure])


if __name__ == "__main__":
    main()
