"""Another API server behind this one: a small one in Python, asked through an APIService, then killed."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.apiserver import RunningServer, running_server, shared_pki
from tiphys.thirdparty.openapi.v2 import openapi_pb2
from tiphys_component.tls import CertificateAuthority

GROUP = "fruit.example.com"
BASE = f"/apis/{GROUP}/v1"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
RESOURCES: dict[str, Any] = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": f"{GROUP}/v1",
    "resources": [
        {"name": "pears/status", "singularName": "", "namespaced": True, "kind": "Pear", "verbs": ["get"]},
        {
            "name": "pears",
            "singularName": "pear",
            "namespaced": True,
            "kind": "Pear",
            "verbs": ["get", "list"],
            "shortNames": ["pe"],
        },
    ],
}

PEAR = {
    "type": "object",
    "properties": {"metadata": {"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}},
}
OPENAPI: dict[str, Any] = {
    "swagger": "2.0",
    "info": {"title": "fruit", "version": "v1"},
    "paths": {
        f"{BASE}/namespaces/{{namespace}}/pears/{{name}}": {
            "parameters": [{"name": "name", "in": "path", "type": "string", "required": True}],
            "get": {
                "operationId": "readPear",
                "responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/com.example.Pear"}}},
            },
        },
        "/version/": {"get": {"operationId": "getVersion", "responses": {}}},
    },
    "definitions": {"com.example.Pear": PEAR, "com.example.Unused": {"type": "object"}},
}


@dataclass
class Extension:
    """An API server of one group; knows who asked, by the front proxy's headers and certificate."""

    port: int = 0
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    runner: web.AppRunner | None = None

    async def start(self, tls: ssl.SSLContext) -> None:
        application = web.Application()
        application.router.add_route("*", "/{tail:.*}", self._answer)
        self.runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port, ssl_context=tls).start()
        self.port = self.runner.addresses[0][1]

    def passed_on(self) -> list[tuple[str, dict[str, Any]]]:
        """What clients asked: the server in front looks by itself whether this one is there, whenever it likes."""
        return [asked for asked in self.asked if "/pears" in asked[0]]

    async def kill(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        certificate: Any = transport.get_extra_info("peercert") or {"subject": []}
        subject = dict(part[0] for part in certificate["subject"])
        headers: dict[str, Any] = {name: request.headers.getall(name) for name in request.headers}
        self.asked.append((request.raw_path, {"certificate": subject.get("commonName", ""), **headers}))
        if request.path == BASE:
            return web.json_response(RESOURCES)
        if request.path == "/openapi/v2":
            return web.json_response(OPENAPI)
        if request.path == f"/openapi/v3{BASE}":
            return web.json_response({"openapi": "3.0.0", "paths": {}})
        if "watch" in request.query:
            answer = web.StreamResponse(headers={"Content-Type": "application/json"})
            await answer.prepare(request)
            for name in ("a", "b"):
                await answer.write(json.dumps({"type": "ADDED", "object": pear(name)}).encode() + b"\n")
            return answer
        if request.path.endswith("/pears"):
            return web.json_response({"kind": "PearList", "apiVersion": f"{GROUP}/v1", "items": [pear("a")]})
        return web.json_response(pear(request.path.rpartition("/")[2]))


def pear(name: str) -> dict[str, Any]:
    return {"kind": "Pear", "apiVersion": f"{GROUP}/v1", "metadata": {"name": name, "namespace": "default"}}


@dataclass
class Files:
    """The front proxy's authority and client, and what the extension server serves with."""

    folder: Path
    tls: ssl.SSLContext
    ca_bundle: str


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("aggregation")
    front = CertificateAuthority.create("front-proxy-ca")
    front.credential.write(folder / "front-ca.crt", folder / "front-ca.key")
    front.issue("front-proxy-client", client=True).write(folder / "front.crt", folder / "front.key")
    own = CertificateAuthority.create("extension-ca")
    own.credential.write(folder / "ext-ca.crt", folder / "ext-ca.key")
    own.issue("fruit", sans=["fruit.default.svc"], server=True).write(folder / "ext.crt", folder / "ext.key")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "front-ca.crt"))
    tls.load_cert_chain(folder / "ext.crt", folder / "ext.key")
    tls.verify_mode = ssl.CERT_REQUIRED
    return Files(folder, tls, base64.b64encode((folder / "ext-ca.crt").read_bytes()).decode())


@dataclass
class Site:
    """A server, and the other one behind it."""

    server: RunningServer
    extension: Extension
    files: Files

    async def condition(self, wanted: str) -> dict[str, Any]:
        """The Available condition once it is what is wanted."""
        while True:
            found = await self.server.http("GET", f"/apis/apiregistration.k8s.io/v1/apiservices/v1.{GROUP}")
            conditions = found.json().get("status", {}).get("conditions", [])
            if conditions and conditions[0]["status"] == wanted:
                condition: dict[str, Any] = conditions[0]
                return condition
            await asyncio.sleep(0.01)


@pytest.fixture
async def site(files: Files) -> AsyncIterator[Site]:
    extension = Extension()
    await extension.start(files.tls)
    front = {"proxy_client_cert_file": files.folder / "front.crt", "proxy_client_key_file": files.folder / "front.key"}
    async with asyncio.timeout(20), running_server(**front) as server:
        # As an ExternalName a service may stand for a server outside the cluster.
        service = {"metadata": {"name": "fruit"}, "spec": {"type": "ExternalName", "externalName": "localhost"}}
        assert (await server.http("POST", "/api/v1/namespaces/default/services", service)).status == 201
        made = await server.http("POST", "/apis/apiregistration.k8s.io/v1/apiservices", api_service(files, extension))
        assert made.status == 201, made.body
        found = Site(server, extension, files)
        await found.condition("True")
        yield found
    await extension.kill()


def api_service(files: Files, extension: Extension, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": f"v1.{GROUP}"},
        "spec": {
            "group": GROUP,
            "version": "v1",
            "service": {"namespace": "default", "name": "fruit", "port": extension.port},
            "caBundle": files.ca_bundle,
            "groupPriorityMinimum": 1000,
            "versionPriority": 15,
            **spec,
        },
    }


async def test_A40_requests_pass_with_who_asks_in_the_front_proxys_headers(site: Site) -> None:
    path = f"{BASE}/namespaces/default/pears/a?labelSelector=x%3Dy"
    forged = {"X-Remote-User": "eve", "Authorization": "Bearer secret", "X-Remote-Group": "system:masters"}
    reply = await site.server.http("GET", path, headers=forged)
    assert (reply.status, reply.json()["metadata"]["name"]) == (200, "a")
    ((raw_path, seen),) = site.extension.passed_on()
    assert raw_path == path
    assert seen["certificate"] == "front-proxy-client"
    assert seen["X-Remote-User"] == ["admin"]
    assert seen["X-Remote-Group"] == ["system:masters", "system:authenticated"]
    assert any(name.lower().startswith("x-remote-extra-authentication.kubernetes.io%2f") for name in seen)
    assert "Authorization" not in seen


async def test_A40_who_may_ask_is_decided_here_first(site: Site) -> None:
    reply = await site.server.http("GET", f"{BASE}/namespaces/default/pears", user="alice")
    assert (reply.status, reply.json()["reason"]) == (403, "Forbidden")
    assert not site.extension.passed_on()


async def test_A40_a_watch_streams(site: Site) -> None:
    reply = await site.server.http("GET", f"{BASE}/namespaces/default/pears?watch=true")
    assert [json.loads(line)["object"]["metadata"]["name"] for line in reply.body.splitlines()] == ["a", "b"]


async def test_A40_discovery_has_the_group_in_both_forms(site: Site) -> None:
    groups = (await site.server.http("GET", "/apis")).json()["groups"]
    version = {"groupVersion": f"{GROUP}/v1", "version": "v1"}
    assert groups[-1] == {"name": GROUP, "versions": [version], "preferredVersion": version}
    assert any(group["name"] == "apps" for group in groups)
    group = (await site.server.http("GET", f"/apis/{GROUP}")).json()
    assert (group["kind"], group["versions"]) == ("APIGroup", [version])
    assert (await site.server.http("GET", BASE)).json() == RESOURCES
    items = (await site.server.http("GET", "/apis", headers={"Accept": AGGREGATED})).json()["items"]
    (found,) = items[-1]["versions"]
    assert (items[-1]["metadata"]["name"], found["freshness"]) == (GROUP, "Current")
    (resource,) = found["resources"]
    assert (resource["resource"], resource["scope"], resource["shortNames"]) == ("pears", "Namespaced", ["pe"])
    assert [sub["subresource"] for sub in resource["subresources"]] == ["status"]


async def test_A40_openapi_v3_names_the_group(site: Site) -> None:
    paths = (await site.server.http("GET", "/openapi/v3")).json()["paths"]
    assert paths[f"apis/{GROUP}/v1"] == {"serverRelativeURL": f"/openapi/v3/apis/{GROUP}/v1"}
    assert (await site.server.http("GET", f"/openapi/v3/apis/{GROUP}/v1")).json()["openapi"] == "3.0.0"


async def test_A40_down_it_is_503_and_nobody_else_suffers(site: Site) -> None:
    await site.extension.kill()
    reply = await site.server.http("GET", f"{BASE}/namespaces/default/pears")
    assert (reply.status, reply.json()["reason"]) == (503, "ServiceUnavailable")
    assert (await site.server.http("GET", "/api/v1/namespaces/default/configmaps")).status == 200
    # A change of the APIService has it looked at again, at once.
    touch = {"metadata": {"labels": {"look": "again"}}}
    path = f"/apis/apiregistration.k8s.io/v1/apiservices/v1.{GROUP}"
    await site.server.http("PATCH", path, touch, content_type="application/merge-patch+json")
    condition = await site.condition("False")
    assert condition["reason"] == "FailedDiscoveryCheck"
    assert (await site.server.http("GET", "/apis")).json()["groups"][-1]["name"] == GROUP
    items = (await site.server.http("GET", "/apis", headers={"Accept": AGGREGATED})).json()["items"]
    assert items[-1]["versions"] == [{"version": "v1", "resources": [], "freshness": "Stale"}]
    await site.extension.start(site.files.tls)
    assert (await site.server.http("GET", f"{BASE}/namespaces/default/pears")).status == 200


async def test_A40_without_the_service_the_condition_says_so(site: Site) -> None:
    assert (await site.server.http("DELETE", "/api/v1/namespaces/default/services/fruit")).status == 200
    path = f"/apis/apiregistration.k8s.io/v1/apiservices/v1.{GROUP}"
    await site.server.http(
        "PATCH", path, {"spec": {"versionPriority": 16}}, content_type="application/merge-patch+json"
    )
    assert (await site.condition("False"))["reason"] == "ServiceNotFound"
    assert (await site.server.http("GET", f"{BASE}/namespaces/default/pears")).status == 503


async def test_A40_a_certificate_of_another_authority_is_refused(site: Site) -> None:
    foreign = base64.b64encode((shared_pki().folder / "ca.crt").read_bytes()).decode()
    path = f"/apis/apiregistration.k8s.io/v1/apiservices/v1.{GROUP}"
    merge = "application/merge-patch+json"
    await site.server.http("PATCH", path, {"spec": {"caBundle": foreign}}, content_type=merge)
    reply = await site.server.http("GET", f"{BASE}/namespaces/default/pears")
    assert reply.status == 503
    assert "certificate verify failed" in reply.json()["message"]
    spec = {"caBundle": None, "insecureSkipTLSVerify": True}
    assert (await site.server.http("PATCH", path, {"spec": spec}, content_type=merge)).status == 200
    assert (await site.server.http("GET", f"{BASE}/namespaces/default/pears")).status == 200


async def test_A40_this_servers_own_group_versions_are_listed_as_local(site: Site) -> None:
    listed = (await site.server.http("GET", "/apis/apiregistration.k8s.io/v1/apiservices")).json()["items"]
    found = {item["metadata"]["name"]: item for item in listed}
    assert {"v1.", "v1.apps", "v2.autoscaling", "v1.rbac.authorization.k8s.io"} <= found.keys()
    assert found["v1.apps"]["status"]["conditions"][0]["reason"] == "Local"
    assert found["v1."]["spec"]["groupPriorityMinimum"] > found["v1.apps"]["spec"]["groupPriorityMinimum"]
    assert (await site.server.http("GET", "/apis/apps/v1/namespaces/default/deployments")).status == 200


async def test_A40_extension_servers_find_whom_to_believe(files: Files) -> None:
    front = {
        "requestheader_client_ca_file": files.folder / "front-ca.crt",
        "requestheader_allowed_names": ("front-proxy-client",),
    }
    async with running_server(**front) as server:
        path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
        data = (await server.http("GET", path)).json()["data"]
    assert data["requestheader-client-ca-file"] == (files.folder / "front-ca.crt").read_text()
    assert data["client-ca-file"] == (shared_pki().folder / "ca.crt").read_text()
    assert json.loads(data["requestheader-allowed-names"]) == ["front-proxy-client"]
    assert json.loads(data["requestheader-username-headers"]) == ["X-Remote-User"]


@pytest.mark.parametrize(
    ("name", "changes", "path"),
    [
        ("v2.fruit.example.com", {}, "metadata.name"),
        (f"v1.{GROUP}", {"insecureSkipTLSVerify": True}, "spec.insecureSkipTLSVerify"),
        (f"v1.{GROUP}", {"service": None}, "spec.caBundle"),
        (f"v1.{GROUP}", {"versionPriority": 0}, "spec.versionPriority"),
    ],
    ids=["name", "tls", "local bundle", "priority"],
)
async def test_A40_faulty_apiservices_are_refused(site: Site, name: str, changes: dict[str, Any], path: str) -> None:
    faulty = api_service(site.files, site.extension, **changes)
    faulty["metadata"]["name"] = name
    reply = await site.server.http("POST", "/apis/apiregistration.k8s.io/v1/apiservices", faulty)
    assert reply.status == 422, reply.body
    assert path in [cause["field"] for cause in reply.json()["details"]["causes"]]


async def test_A41_other_servers_are_in_openapi_v2(site: Site) -> None:
    await site.condition("True")
    document = (await site.server.http("GET", "/openapi/v2")).json()
    path = f"{BASE}/namespaces/{{namespace}}/pears/{{name}}"
    assert document["paths"][path]["get"]["operationId"] == "readPear"
    assert document["definitions"]["com.example.Pear"] == PEAR
    assert "com.example.Unused" not in document["definitions"]
    assert "/api/v1/namespaces/{namespace}/pods" in document["paths"]
    accept = {"Accept": "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"}
    reply = await site.server.http("GET", "/openapi/v2", headers=accept)
    read = openapi_pb2.Document.FromString(reply.body)
    assert path in [item.name for item in read.paths.path]
    assert "com.example.Pear" in [item.name for item in read.definitions.additional_properties]
    # A server that is gone for a while is remembered, and nobody waits for it.
    await site.extension.kill()
    again = await site.server.http("GET", "/openapi/v2", headers={"If-None-Match": '"none"'})
    assert again.json() == document
    assert [asked for asked, _ in site.extension.asked].count("/openapi/v2") == 1
