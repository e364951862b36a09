"""The API server with many pods: batches of binds, what an operation costs among 100,000, and a list of them all.

Run: python -m tests.bench.api_scale. Over SQLite; the pods are there before the server starts.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

import grpc
import orjson
import uvloop

from tests.bench.api_server import RunningApiServer, running_api_server
from tests.bench.figures import Figure, print_figures, print_heading
from tests.bench.process import forget_peak, peak_rss_mb, rss_mb, spending
from tests.bench.rest_client import Client, Connection, request
from tests.bench.scale_pods import NAMESPACE, fill_pods, pod_name
from tests.support.apiserver import shared_pki
from tiphys.api.core.v1 import binding_pb2
from tiphys.apiserver.v1 import wire_pb2

FEW, MANY = 1_000, 100_000
_BOUND = 10_000
_BATCH = 500
# As the scheduler binds: one batch is under way while the next is made.
_UNDER_WAY = 2
_BATCH_BIND = "/tiphys.apiserver.core.v1.PodService/BatchBind"
_PODS_PATH = f"/api/v1/namespaces/{NAMESPACE}/pods"
_CALLS = 1000
_TIMEOUT_S = 120.0


def measure_scale() -> list[Figure]:
    """All figures."""
    with running_api_server("sqlite", lambda path: fill_pods(path, _BOUND)) as server:
        figures = [uvloop.run(_bind_all(server))]
    with running_api_server("sqlite", lambda path: fill_pods(path, FEW)) as server:
        among_few = uvloop.run(_costs_ms(server))
    with running_api_server("sqlite", lambda path: fill_pods(path, MANY)) as server:
        among_many = uvloop.run(_costs_ms(server))
        figures += [_flat(name, among_many[name], among_few[name]) for name in among_few]
        figures += uvloop.run(_long_list(server))
    return figures


def _flat(name: str, many_ms: float, few_ms: float) -> Figure:
    note = f"{many_ms:.3g} ms among {MANY:,}, {few_ms:.3g} among {FEW:,}"
    return Figure(f"sqlite: {name}, among {MANY:,} pods to among {FEW:,}", many_ms / few_ms, "times", note=note)


async def _bind_all(server: RunningApiServer) -> Figure:
    requests = iter([_binds(start) for start in range(0, _BOUND, _BATCH)])
    async with grpc.aio.secure_channel(f"127.0.0.1:{server.grpc_port}", _credentials()) as channel:
        bind = channel.unary_unary(_BATCH_BIND, None, response_deserializer=wire_pb2.BatchBindResponse.FromString)

        async def work() -> None:
            for data in requests:
                answer = await bind(data)
                if not all(b"Success" in status for status in answer.statuses):
                    raise RuntimeError(f"not bound: {answer.statuses[0]!r}")

        with spending(server.pid) as spent:
            async with asyncio.TaskGroup() as group:
                for _ in range(_UNDER_WAY):
                    group.create_task(work())
    note = f"{spent.cpu[0] / _BOUND * 1e6:.0f} µs of CPU each; {_BATCH} a batch, {_UNDER_WAY} under way"
    return Figure("sqlite: batch bind, durable", _BOUND / spent.wall_s, "per s", note=note, at_least=8000)


def _binds(start: int) -> bytes:
    bindings = []
    for number in range(start, start + _BATCH):
        binding = binding_pb2.Binding()
        binding.metadata.name, binding.metadata.namespace = pod_name(number), NAMESPACE
        binding.target.kind, binding.target.name = "Node", f"node-{number % 1000:04d}"
        bindings.append(binding.SerializeToString())
    return wire_pb2.BatchBindRequest(bindings=bindings).SerializeToString()


def _credentials() -> grpc.ChannelCredentials:
    folder = shared_pki().folder
    return grpc.ssl_channel_credentials(
        (folder / "ca.crt").read_bytes(), (folder / "admin.key").read_bytes(), (folder / "admin.crt").read_bytes()
    )


async def _costs_ms(server: RunningApiServer) -> dict[str, float]:
    """CPU time of one call of each kind."""
    step = FEW // _CALLS
    paths = [f"{_PODS_PATH}/{pod_name(number * step)}" for number in range(_CALLS)]
    patch = orjson.dumps({"metadata": {"annotations": {"bench": "x"}}})
    media = "application/merge-patch+json"
    calls = {
        "GET": [request("GET", path) for path in paths],
        "PATCH": [request("PATCH", path, patch, content_type=media) for path in paths],
        "page of 100": [request("GET", f"{_PODS_PATH}?limit=100") for _ in range(_CALLS // 10)],
    }
    costs = {}
    async with Client(server.port, server.tls).connected() as client:
        for name, requests in calls.items():
            with spending(server.pid) as spent:
                await client.all(requests)
            costs[name] = spent.cpu[0] / len(requests) * 1e3
    return costs


class _Reader(Connection):
    """Reads an answer in chunks and throws it away; knows when it began and when it was whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first_byte_at = 0.0
        self.size = 0
        self.whole = asyncio.Event()
        self._tail = b""

    def start(self, data: bytes) -> None:
        """Ask."""
        assert self._transport is not None
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        """A piece of the answer."""
        self.first_byte_at = self.first_byte_at or perf_counter()
        self.size += len(data)
        self._tail = (self._tail + data)[-5:]
        if self._tail == b"0\r\n\r\n":
            self.whole.set()


async def _long_list(server: RunningApiServer) -> list[Figure]:
    client = Client(server.port, server.tls)
    reader = await client.open(_Reader)
    assert isinstance(reader, _Reader)
    before = rss_mb(server.pid)
    forget_peak(server.pid)
    began = perf_counter()
    reader.start(request("GET", _PODS_PATH))
    async with asyncio.timeout(_TIMEOUT_S):
        await reader.whole.wait()
    wall_s = perf_counter() - began
    extra = peak_rss_mb(server.pid) - before
    reader.close()
    what = f"sqlite: LIST {MANY:,} pods, JSON, "
    note = f"{reader.size / 1e6:,.0f} MB in {wall_s:.1f} s; {before:,.0f} MB before"
    return [
        Figure(what + "first byte", (reader.first_byte_at - began) * 1e3, "ms", 100),
        Figure(what + "extra memory", extra, "MB", 64, note),
    ]


if __name__ == "__main__":
    print_heading()
    print_figures(measure_scale())
