"""metrics.k8s.io by both doors, from a kubelet over TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import orjson
import pytest

from tests.support.apiserver import RunningServer, shared_pki
from tiphys.api.metrics.v1beta1 import metrics_pb2
from tiphys.apiserver.metrics.v1beta1 import pod_metrics_service_pb2
from tiphys.apiserver.v1 import wire_pb2

BASE = "/apis/metrics.k8s.io/v1beta1"
TIME = "2026-01-02T03:04:05Z"
MERGE = "application/merge-patch+json"


def use(nano_cores: int, working_set: int) -> dict[str, Any]:
    cpu = {"time": TIME, "usageNanoCores": nano_cores, "windowSeconds": 15.0}
    return {"cpu": cpu, "memory": {"time": TIME, "workingSetBytes": working_set}}


class SummaryKubelet:
    """Answers with the summary that a test gives it."""

    def __init__(self) -> None:
        self.pods: list[dict[str, Any]] = []
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[0])
        body = orjson.dumps({"node": {"nodeName": "n1", **use(250_000_000, 1 << 30)}, "pods": self.pods})
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        writer.close()

    def add(self, uid: str, *containers: tuple[str, int, int]) -> None:
        found = [{"name": name, **use(nano_cores, memory)} for name, nano_cores, memory in containers]
        self.pods.append({"podRef": {"uid": uid, "name": "x", "namespace": "x"}, "containers": found})


@asynccontextmanager
async def metered_node(server: RunningServer) -> AsyncIterator[SummaryKubelet]:
    """A node n1 whose kubelet tells, and a node n2 whose kubelet is gone."""
    folder = shared_pki().folder
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    kubelet = SummaryKubelet()
    listener = await asyncio.start_server(kubelet.serve, "127.0.0.1", 0, ssl=context)
    for name, port in (("n1", listener.sockets[0].getsockname()[1]), ("n2", 1)):
        made = await server.http("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": {"which": name}}})
        assert made.status == 201
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        await server.http("PATCH", f"/api/v1/nodes/{name}/status", {"status": status}, content_type=MERGE)
    try:
        yield kubelet
    finally:
        listener.close()
        await listener.wait_closed()


async def running_pod(server: RunningServer, name: str, labels: dict[str, str], node: str = "n1") -> str:
    """A pod that runs on a node; its uid."""
    body = {
        "metadata": {"name": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "busybox"}]},
    }
    made = await server.http("POST", "/api/v1/namespaces/default/pods", body)
    assert made.status == 201, made.body
    path = f"/api/v1/namespaces/default/pods/{name}/status"
    assert (await server.http("PATCH", path, {"status": {"phase": "Running"}}, content_type=MERGE)).status == 200
    return str(made.json()["metadata"]["uid"])


async def test_J2_nodes_and_pods_tell_what_they_use(server: RunningServer) -> None:
    async with metered_node(server) as kubelet:
        kubelet.add(await running_pod(server, "web", {"app": "web"}), ("c", 100_000_000, 5 << 20))
        kubelet.add(await running_pod(server, "db", {"app": "db"}), ("c", 3_000_000, 7 << 20))
        await running_pod(server, "unknown", {"app": "web"})
        await running_pod(server, "elsewhere", {"app": "web"}, node="n2")
        nodes = (await server.http("GET", f"{BASE}/nodes")).json()
        assert nodes["kind"] == "NodeMetricsList"
        (node,) = nodes["items"]
        assert node["metadata"]["labels"] == {"which": "n1"}
        assert node["usage"] == {"cpu": "250m", "memory": "1Gi"}
        assert node["timestamp"] == TIME
        pods = (await server.http("GET", f"{BASE}/pods")).json()["items"]
        assert [pod["metadata"]["name"] for pod in pods] == ["db", "web"]
        chosen = (await server.http("GET", f"{BASE}/namespaces/default/pods?labelSelector=app%3Dweb")).json()["items"]
        assert [pod["metadata"]["name"] for pod in chosen] == ["web"]
        assert chosen[0]["containers"] == [{"name": "c", "usage": {"cpu": "100m", "memory": "5Mi"}}]
        assert chosen[0]["window"] == "15s"
        one = (await server.http("GET", f"{BASE}/namespaces/default/pods/db")).json()
        assert (one["kind"], one["apiVersion"]) == ("PodMetrics", "metrics.k8s.io/v1beta1")
        assert (await server.http("GET", f"{BASE}/namespaces/other/pods")).json()["items"] == []
        # All of it from one look at the kubelet.
        assert kubelet.asked == ["GET /stats/summary?only_cpu_and_memory=true HTTP/1.1"]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nodes/none", 404),
        ("GET", "/nodes/n2", 404),
        ("GET", "/namespaces/default/pods/none", 404),
        ("GET", "/namespaces/default/pods?labelSelector=%3D%3D", 400),
        ("DELETE", "/nodes/n1", 405),
        ("GET", "/nodes?watch=1", 405),
    ],
)
async def test_what_is_not_there_is_refused(server: RunningServer, method: str, path: str, code: int) -> None:
    async with metered_node(server):
        assert (await server.http(method, BASE + path)).status == code


async def test_stranger_learns_nothing(server: RunningServer) -> None:
    async with metered_node(server):
        assert (await server.http("GET", f"{BASE}/nodes", user="alice")).status == 403


async def test_viewers_may_see_what_is_used(server: RunningServer) -> None:
    binding = {
        "metadata": {"name": "alice-views"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    assert (await server.http("POST", path, binding)).status == 201
    async with metered_node(server):
        assert (await server.http("GET", f"{BASE}/nodes", user="alice")).status == 200


async def test_grpc_tells_the_same(server: RunningServer) -> None:
    async with metered_node(server) as kubelet:
        kubelet.add(await running_pod(server, "web", {"app": "web"}), ("c", 100_000_000, 5 << 20))
        request = wire_pb2.ListRequest(namespace="default", label_selector="app=web")
        raw = await server.grpc("metrics.v1beta1.PodMetricsService", "List", request)
        # The typed stub reads it as well.
        (pod,) = pod_metrics_service_pb2.PodMetricsServiceListResponse.FromString(raw).items
        assert pod.metadata.name == "web"
        assert pod.containers[0].usage["cpu"].string == "100m"
        raw = await server.grpc("metrics.v1beta1.NodeMetricsService", "Get", wire_pb2.GetRequest(name="n1"))
        node = metrics_pb2.NodeMetrics.FromString(wire_pb2.GetResponse.FromString(raw).object)
        assert node.usage["memory"].string == "1Gi"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.grpc("metrics.v1beta1.NodeMetricsService", "Get", wire_pb2.GetRequest(name="n2"))
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_group_is_discovered(server: RunningServer) -> None:
    groups = (await server.http("GET", "/apis")).json()["groups"]
    assert "metrics.k8s.io" in [group["name"] for group in groups]
    resources = (await server.http("GET", BASE)).json()["resources"]
    assert resources == [
        {"name": "nodes", "singularName": "", "namespaced": False, "kind": "NodeMetrics", "verbs": ["get", "list"]},
        {"name": "pods", "singularName": "", "namespaced": True, "kind": "PodMetrics", "verbs": ["get", "list"]},
    ]
    schema = (await server.http("GET", f"/openapi/v3{BASE}")).json()
    assert f"{BASE}/nodes" in schema["paths"]


async def test_server_that_an_api_service_names_takes_the_place(server: RunningServer) -> None:
    path = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"
    assert (await server.http("GET", path)).json()["spec"]["group"] == "metrics.k8s.io"
    change = {
        "spec": {"service": {"namespace": "kube-system", "name": "metrics-server"}, "insecureSkipTLSVerify": True}
    }
    assert (await server.http("PATCH", path, change, content_type=MERGE)).status == 200
    reply = await server.http("GET", f"{BASE}/nodes")
    assert reply.status == 503
    assert "metrics-server" in reply.json()["message"]
