"""The manager as a whole: which controllers run, and what it tells of them, over gRPC and over HTTP."""

from __future__ import annotations

import socket

import aiohttp
import grpc

from tests.integration.controller_manager.conftest import cluster_of
from tests.integration.controller_manager.test_controllers import deployment, has, listed
from tests.support.apiserver import running_server
from tiphys.api.batch.v1 import batch_pb2
from tiphys.api.core.v1 import pod_pb2, service_account_pb2
from tiphys.controllermanager.v1 import controllermanager_pb2, controllermanager_pb2_grpc

UPSTREAM_METRICS = (
    'workqueue_adds_total{name="deployment-controller"}',
    'workqueue_depth{name="deployment-controller"}',
    'workqueue_queue_duration_seconds_bucket{le="0.01",name="deployment-controller"}',
    'workqueue_work_duration_seconds_count{name="deployment-controller"}',
    'workqueue_retries_total{name="deployment-controller"}',
)


def job() -> batch_pb2.Job:
    made = batch_pb2.Job()
    made.metadata.name, made.metadata.namespace = "j", "default"
    made.spec.template.spec.restartPolicy = "Never"
    made.spec.template.spec.containers.add(name="c", image="busybox")
    return made


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for item in (one, other):
            item.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


async def test_B2_a_controller_turned_off_leaves_its_kind_alone_and_the_others_work() -> None:
    ports = free_ports()
    async with (
        running_server() as server,
        cluster_of(server, controllers=("*", "-job"), ports=ports) as cluster,
        aiohttp.ClientSession(f"http://127.0.0.1:{ports[0]}") as http,
        grpc.aio.insecure_channel(f"127.0.0.1:{ports[1]}") as channel,
    ):
        await cluster.until(lambda: has(cluster, service_account_pb2.ServiceAccount, "default", "default"))
        await cluster.client.create(job())
        await cluster.client.create(deployment(replicas=2))

        async def pods() -> bool:
            return len(await listed(cluster, pod_pb2.Pod)) == 2

        await cluster.until(pods)
        owners = {pod.metadata.ownerReferences[0].kind for pod in await listed(cluster, pod_pb2.Pod)}
        assert owners == {"ReplicaSet"}
        stored = await cluster.client.get(batch_pb2.Job, "j", "default")
        assert not stored.status.HasField("startTime")

        page = (await (await http.get("/controllers")).text()).splitlines()
        assert "[ ]job-controller off" in page
        assert any(line.startswith("[+]deployment-controller queue=") for line in page)
        metrics = await (await http.get("/metrics")).text()
        assert not [name for name in UPSTREAM_METRICS if name not in metrics]

        face = controllermanager_pb2_grpc.ControllerManagerServiceStub(channel)
        answer = await face.ListControllers(controllermanager_pb2.ListControllersRequest())
        states = {item.name: item for item in answer.controllers}
        assert (states["job-controller"].enabled, states["job-controller"].running) == (False, False)
        working = states["deployment-controller"]
        assert (working.enabled, working.running, working.reconciles > 0) == (True, True, True)
        assert answer.leader == answer.identity
