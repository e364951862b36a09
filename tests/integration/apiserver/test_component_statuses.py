"""componentstatuses: who of the control plane is well."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.apiserver import RunningServer
from tiphys.api.core.v1 import component_status_pb2
from tiphys.apiserver.v1 import wire_pb2

PATH = "/api/v1/componentstatuses"


def lease(name: str, age_s: float) -> dict[str, Any]:
    renewed = datetime.now(UTC) - timedelta(seconds=age_s)
    spec = {"leaseDurationSeconds": 15, "renewTime": renewed.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "holderIdentity": "x"}
    return {"metadata": {"name": name}, "spec": spec}


async def test_component_is_well_while_it_renews_its_lease(server: RunningServer) -> None:
    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
    assert (await server.http("POST", leases, lease("kube-scheduler", 1))).status == 201
    assert (await server.http("POST", leases, lease("kube-controller-manager", 60))).status == 201
    listed = (await server.http("GET", PATH)).json()
    found = {item["metadata"]["name"]: item["conditions"][0] for item in listed["items"]}
    assert {name: one["status"] for name, one in found.items()} == {
        "controller-manager": "False",
        "scheduler": "True",
        "etcd-0": "True",
    }
    assert found["controller-manager"]["error"] == "lease not renewed within its 15 s"
    raw = await server.grpc("core.v1.ComponentStatusService", "Get", wire_pb2.GetRequest(name="scheduler"))
    one: Any = component_status_pb2.ComponentStatus.FromString(wire_pb2.GetResponse.FromString(raw).object)
    assert one.conditions[0].message == "ok"


async def test_component_that_never_ran_and_one_that_nobody_knows(server: RunningServer) -> None:
    missing = (await server.http("GET", f"{PATH}/scheduler")).json()
    assert "has not been started" in missing["conditions"][0]["error"]
    assert (await server.http("GET", f"{PATH}/gadget")).status == 404
    assert (await server.http("DELETE", f"{PATH}/scheduler")).status == 405
