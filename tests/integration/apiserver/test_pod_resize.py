"""pods/resize over HTTP and gRPC: what it changes, who may, and what a namespace's rules say to it."""

from __future__ import annotations

from typing import Any

from tests.support.apiserver import RunningServer

PODS = "/api/v1/namespaces/default/pods"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


def resources(cpu: str, limit: str) -> dict[str, Any]:
    return {"requests": {"cpu": cpu, "memory": "64Mi"}, "limits": {"cpu": limit, "memory": "128Mi"}}


def patch(cpu: str, limit: str) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "c", "resources": resources(cpu, limit)}]}}


async def make_pod(server: RunningServer) -> dict[str, Any]:
    containers = [{"name": "c", "image": "busybox", "resources": resources("100m", "200m")}]
    reply = await server.http("POST", PODS, {"metadata": {"name": "p"}, "spec": {"containers": containers}})
    assert reply.status == 201, reply.body
    made: dict[str, Any] = reply.json()
    return made


async def test_D34_the_subresource_is_discovered_read_patched_and_put(server: RunningServer) -> None:
    listed = (await server.http("GET", "/api/v1")).json()["resources"]
    found = next(one for one in listed if one["name"] == "pods/resize")
    assert (found["kind"], sorted(found["verbs"])) == ("Pod", ["get", "patch", "update"])
    made = await make_pod(server)
    reply = await server.http("PATCH", f"{PODS}/p/resize", patch("150m", "300m"), content_type=STRATEGIC)
    assert reply.status == 200, reply.body
    resized = reply.json()
    assert resized["spec"]["containers"][0]["resources"] == resources("150m", "300m")
    assert resized["metadata"]["generation"] == made["metadata"]["generation"] + 1
    assert resized["spec"]["containers"][0]["resizePolicy"] == [
        {"resourceName": "cpu", "restartPolicy": "NotRequired"},
        {"resourceName": "memory", "restartPolicy": "NotRequired"},
    ]
    read = (await server.http("GET", f"{PODS}/p/resize")).json()
    assert read["metadata"]["resourceVersion"] == resized["metadata"]["resourceVersion"]
    read["spec"]["containers"][0]["resources"] = resources("120m", "240m")
    read["metadata"]["labels"] = {"not": "taken"}
    put = await server.http("PUT", f"{PODS}/p/resize", read)
    assert put.status == 200, put.body
    assert put.json()["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "240m"
    assert "labels" not in put.json()["metadata"]


async def test_D34_a_plain_write_changes_no_resources_and_a_stale_resize_is_a_conflict(server: RunningServer) -> None:
    made = await make_pod(server)
    plain = await server.http("PATCH", f"{PODS}/p", patch("150m", "300m"), content_type=STRATEGIC)
    assert (plain.status, plain.json()["reason"]) == (422, "Invalid")
    await server.http("PATCH", f"{PODS}/p/resize", patch("150m", "300m"), content_type=STRATEGIC)
    stale = await server.http("PUT", f"{PODS}/p/resize", made)
    assert (stale.status, stale.json()["reason"]) == (409, "Conflict")


async def test_D34_quota_and_limits_hold_for_a_resize(server: RunningServer) -> None:
    limits = {"limits": [{"type": "Container", "max": {"cpu": "400m"}}]}
    reply = await server.http(
        "POST", "/api/v1/namespaces/default/limitranges", {"metadata": {"name": "l"}, "spec": limits}
    )
    assert reply.status == 201
    await make_pod(server)
    refused = await server.http("PATCH", f"{PODS}/p/resize", patch("100m", "500m"), content_type=STRATEGIC)
    assert refused.status == 403
    assert "maximum cpu usage per Container is 400m, but limit is 500m" in refused.json()["message"]
    quotas = "/api/v1/namespaces/default/resourcequotas"
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "200m"}}}
    assert (await server.http("POST", quotas, quota)).status == 201
    status = {"status": {"hard": {"requests.cpu": "200m"}, "used": {"requests.cpu": "100m"}}}
    assert (await server.http("PATCH", f"{quotas}/q/status", status, content_type=MERGE)).status == 200
    over = await server.http("PATCH", f"{PODS}/p/resize", patch("250m", "300m"), content_type=STRATEGIC)
    assert over.status == 403
    assert "exceeded quota: q, requested: requests.cpu=150m, used: requests.cpu=100m" in over.json()["message"]
    fits = await server.http("PATCH", f"{PODS}/p/resize", patch("150m", "300m"), content_type=STRATEGIC)
    assert fits.status == 200, fits.body
    assert (await server.http("GET", f"{quotas}/q")).json()["status"]["used"] == {"requests.cpu": "150m"}


async def test_D34_editors_may_resize_and_viewers_may_not(server: RunningServer) -> None:
    roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    edit = (await server.http("GET", f"{roles}/system:aggregate-to-edit")).json()
    view = (await server.http("GET", f"{roles}/system:aggregate-to-view")).json()

    def verbs(role: dict[str, Any]) -> set[str]:
        return {verb for rule in role["rules"] if "pods/resize" in rule.get("resources", ()) for verb in rule["verbs"]}

    assert verbs(edit) == {"patch", "update"}
    assert verbs(view) == set()
