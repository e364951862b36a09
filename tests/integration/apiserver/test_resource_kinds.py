"""The kinds of resource.k8s.io/v1 through every verb, as Kubernetes' conformance suite drives them."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from tests.support.apiserver import RunningServer, read_chunks, running_server

GROUP = "/apis/resource.k8s.io/v1"
MERGE = "application/merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
CLAIM = {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu"}}]}}
SLICE = {
    "driver": "gpu.example",
    "nodeName": "n1",
    "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1},
    "devices": [{"name": "a", "attributes": {"model": {"string": "x"}}, "capacity": {"memory": {"value": "1Gi"}}}],
}
KINDS = [
    pytest.param("ResourceClaim", f"{GROUP}/namespaces/default/resourceclaims", CLAIM, id="ResourceClaim"),
    pytest.param(
        "ResourceClaimTemplate",
        f"{GROUP}/namespaces/default/resourceclaimtemplates",
        {"spec": CLAIM},
        id="ResourceClaimTemplate",
    ),
    pytest.param("DeviceClass", f"{GROUP}/deviceclasses", {"selectors": []}, id="DeviceClass"),
    pytest.param("ResourceSlice", f"{GROUP}/resourceslices", SLICE, id="ResourceSlice"),
]


def named(name: str, spec: dict[str, Any], **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}, "spec": spec}


async def first_events(server: RunningServer, path: str, count: int) -> list[str]:
    """The types of the first events of a watch from the beginning."""
    reader, writer = await server.connect()
    try:
        writer.write(f"GET {path}?watch=1&resourceVersion=0&labelSelector=t%3D1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        found: list[str] = []
        rest = b""
        async with asyncio.timeout(30):
            async for chunk in read_chunks(reader):
                *lines, rest = (rest + chunk).split(b"\n")
                found += [orjson.loads(line)["type"] for line in lines if line]
                if len(found) >= count:
                    break
        return found
    finally:
        writer.close()


@pytest.mark.parametrize(("kind", "path", "spec"), KINDS)
async def test_C28_every_verb_of_a_kind(server: RunningServer, kind: str, path: str, spec: dict[str, Any]) -> None:
    made = await server.http("POST", path, named("one", spec, t="1"))
    assert (made.status, made.json()["kind"]) == (201, kind)
    assert (await server.http("GET", f"{path}/one")).json() == made.json()
    listed = (await server.http("GET", f"{path}?labelSelector=t%3D1")).json()
    assert (listed["kind"], [item["metadata"]["name"] for item in listed["items"]]) == (f"{kind}List", ["one"])
    patched = await server.http("PATCH", f"{path}/one", {"metadata": {"labels": {"u": "2"}}}, content_type=MERGE)
    assert patched.json()["metadata"]["labels"] == {"t": "1", "u": "2"}
    changed = patched.json()
    changed["metadata"]["annotations"] = {"who": "me"}
    updated = await server.http("PUT", f"{path}/one", changed)
    assert (updated.status, updated.json()["metadata"]["annotations"]) == (200, {"who": "me"})
    table = await server.http("GET", path, headers={"Accept": TABLE})
    assert table.json()["columnDefinitions"][0]["name"] == "Name"
    assert await first_events(server, path, 1) == ["ADDED"]
    assert (await server.http("DELETE", f"{path}/one")).status == 200
    assert (await server.http("GET", f"{path}/one")).status == 404
    for name in ("a", "b", "kept"):
        await server.http("POST", path, named(name, spec, t="0" if name == "kept" else "1"))
    assert (await server.http("DELETE", f"{path}?labelSelector=t%3D1")).status == 200
    left = (await server.http("GET", path)).json()
    assert [item["metadata"]["name"] for item in left["items"]] == ["kept"]


async def test_C28_the_status_of_a_claim_is_written_by_its_own_path(server: RunningServer) -> None:
    path = f"{GROUP}/namespaces/default/resourceclaims"
    status = {
        "allocation": {"devices": {"results": [{"request": "gpu", "driver": "d", "pool": "p", "device": "a"}]}},
        "reservedFor": [{"resource": "pods", "name": "web", "uid": "1"}],
    }
    made = (await server.http("POST", path, named("one", CLAIM) | {"status": status})).json()
    assert not made.get("status")
    assert made["spec"]["devices"]["requests"][0]["exactly"]["count"] == 1
    whole = await server.http("PUT", f"{path}/one/status", made | {"status": status})
    assert whole.json()["status"]["reservedFor"] == status["reservedFor"]
    table = await server.http("GET", path, headers={"Accept": TABLE})
    assert table.json()["rows"][0]["cells"][1] == "allocated,reserved"
    said = {"status": {"devices": [{"driver": "d", "pool": "p", "device": "a", "data": {"x": 1}}]}}
    patched = await server.http("PATCH", f"{path}/one/status", said, content_type=MERGE)
    assert patched.json()["status"]["devices"][0]["data"] == {"x": 1}
    other = {"spec": {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "other"}}]}}}
    refused = await server.http("PATCH", f"{path}/one", other, content_type=MERGE)
    assert (refused.status, "immutable" in refused.json()["message"]) == (422, True)


async def test_C28_slices_are_selected_by_node_and_driver(server: RunningServer) -> None:
    path = f"{GROUP}/resourceslices"
    for name, node, driver in (("a", "n1", "x.example"), ("b", "n1", "y.example"), ("c", "n2", "x.example")):
        spec = SLICE | {"nodeName": node, "driver": driver}
        assert (await server.http("POST", path, named(name, spec))).status == 201
    found = await server.http("GET", f"{path}?fieldSelector=spec.nodeName%3Dn1,spec.driver%3Dx.example")
    assert [item["metadata"]["name"] for item in found.json()["items"]] == ["a"]


async def test_C28_a_node_writes_slices_of_its_own_and_reads_claims_of_its_pods() -> None:
    user = "system:node:n1"
    async with running_server() as server:
        path, claims = f"{GROUP}/resourceslices", f"{GROUP}/namespaces/default/resourceclaims"
        assert (await server.http("POST", path, named("own", SLICE), user=user)).status == 201
        foreign = named("foreign", SLICE | {"nodeName": "n2"})
        assert (await server.http("POST", path, foreign, user=user)).status == 403
        await server.http("POST", path, foreign)
        assert (await server.http("DELETE", f"{path}/foreign", user=user)).status == 403
        assert (await server.http("GET", path, user=user)).status == 403
        mine = await server.http("GET", f"{path}?fieldSelector=spec.nodeName%3Dn1", user=user)
        assert [item["metadata"]["name"] for item in mine.json()["items"]] == ["own"]
        for name in ("mine", "theirs"):
            await server.http("POST", claims, named(name, CLAIM))
        await server.http("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
        containers = [{"name": "c", "image": "i", "resources": {"claims": [{"name": "gpu"}]}}]
        bound = [{"name": "gpu", "resourceClaimName": "mine"}]
        pod = {"containers": containers, "nodeName": "n1", "resourceClaims": bound}
        made = await server.http("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": "p"}, "spec": pod})
        assert made.status == 201, made.json()
        assert (await server.http("GET", f"{claims}/mine", user=user)).status == 200
        assert (await server.http("GET", f"{claims}/theirs", user=user)).status == 403
