"""MutatingAdmissionPolicies through the server: they change objects by merging and patching, in order, or fail."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.support.apiserver import RunningServer
from tests.support.https_hook import ca_bundle, https_hook
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.apiserver.v1 import wire_pb2

ADMISSION = "/apis/admissionregistration.k8s.io/v1beta1"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"


def applies(expression: str) -> dict[str, Any]:
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}


def patches(expression: str) -> dict[str, Any]:
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}


def puts(name: str, expression: str) -> dict[str, Any]:
    """A mutation that sets an entry of a ConfigMap's data."""
    return applies(f"Object{{data: {{'{name}': {expression}}}}}")


async def register(
    server: RunningServer, *mutations: dict[str, Any], name: str = "demo", resource: str = "configmaps", **spec: Any
) -> None:
    """Make a policy and bind it."""
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource]}]
    binding = spec.pop("binding", {})
    body = {
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": rules},
            "mutations": list(mutations),
            "reinvocationPolicy": "Never",
            **spec,
        },
    }
    made = await server.http("POST", f"{ADMISSION}/mutatingadmissionpolicies", body)
    assert made.status == 201, made.body
    assert made.json()["spec"]["failurePolicy"] == spec.get("failurePolicy", "Fail")
    bound = {"metadata": {"name": f"{name}-bound"}, "spec": {"policyName": name, **binding}}
    made = await server.http("POST", f"{ADMISSION}/mutatingadmissionpolicybindings", bound)
    assert made.status == 201, made.body


async def create(server: RunningServer, name: str = "a", **data: str) -> Any:
    return await server.http("POST", CONFIG_MAPS, {"metadata": {"name": name}, "data": data})


async def test_A48_a_sidecar_is_injected_with_its_defaults(server: RunningServer) -> None:
    side = "Object.spec.initContainers{name: 'mesh', image: 'mesh/proxy:v1', restartPolicy: 'Always'}"
    await register(
        server,
        applies(f"Object{{spec: Object.spec{{initContainers: [{side}]}}}}"),
        resource="pods",
        matchConditions=[
            {"name": "not-yet", "expression": "!object.spec.?initContainers.orValue([]).exists(c, c.name == 'mesh')"}
        ],
    )
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}}
    made = await server.http("POST", PODS, pod)
    assert made.status == 201, made.body
    [injected] = made.json()["spec"]["initContainers"]
    assert (injected["name"], injected["image"], injected["restartPolicy"]) == ("mesh", "mesh/proxy:v1", "Always")
    assert injected["imagePullPolicy"] == "IfNotPresent"
    assert injected["terminationMessagePath"] == "/dev/termination-log"
    shown = (await server.http("GET", f"{PODS}/p")).json()
    assert [container["name"] for container in shown["spec"]["containers"]] == ["c"]


async def test_A48_patches_variables_and_the_request(server: RunningServer) -> None:
    await register(
        server,
        patches(
            "has(object.metadata.labels) ? []"
            " : [JSONPatch{op: 'add', path: '/metadata/labels', value: {'by': variables.who}}]"
        ),
        puts("seen", "string(object.metadata.labels.by == 'admin')"),
        variables=[{"name": "who", "expression": "request.userInfo.username"}],
    )
    made = (await create(server)).json()
    assert (made["metadata"]["labels"], made["data"]) == ({"by": "admin"}, {"seen": "true"})
    sent = ConfigMap()
    sent.metadata.name = "over-grpc"
    request = wire_pb2.CreateRequest(namespace="default", object=sent.SerializeToString())
    reply = wire_pb2.CreateResponse.FromString(await server.grpc("core.v1.ConfigMapService", "Create", request))
    assert dict(ConfigMap.FromString(reply.object).data) == {"seen": "true"}


async def test_A48_policies_come_by_name_and_again_where_they_ask_for_it(server: RunningServer) -> None:
    count = "string(int(object.?data.?first.orValue('0')) + 1)"
    await register(server, puts("first", count), name="a-first", reinvocationPolicy="IfNeeded")
    await register(server, puts("once", "object.data.first"), name="b-second")
    assert (await create(server)).json()["data"] == {"first": "2", "once": "1"}


async def test_A48_policies_see_what_webhooks_changed(server: RunningServer) -> None:
    await register(server, puts("saw", "object.?data.?hook.orValue('nothing')"), reinvocationPolicy="IfNeeded")
    patch = base64.b64encode(json.dumps([{"op": "add", "path": "/data/hook", "value": "changed"}]).encode()).decode()

    def answer(_path: str, review: dict[str, Any]) -> Any:
        response = {"uid": review["request"]["uid"], "allowed": True, "patchType": "JSONPatch", "patch": patch}
        return {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}

    async with https_hook(server.pki, answer) as url:
        hook = {
            "name": "a.example.com",
            "clientConfig": {"url": f"{url}/a", "caBundle": ca_bundle(server.pki)},
            "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
        path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
        assert (await server.http("POST", path, {"metadata": {"name": "a"}, "webhooks": [hook]})).status == 201
        assert (await create(server)).json()["data"] == {"hook": "changed", "saw": "changed"}


async def test_A48_parameters_are_given_and_missed(server: RunningServer) -> None:
    await server.http("POST", CONFIG_MAPS, {"metadata": {"name": "settings"}, "data": {"team": "blue"}})
    reference = {"name": "settings", "parameterNotFoundAction": "Deny"}
    await register(
        server,
        puts("team", "params.data.team"),
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        binding={"paramRef": reference},
        matchConditions=[{"name": "others", "expression": "object.metadata.name != 'settings'"}],
    )
    assert (await create(server)).json()["data"] == {"team": "blue"}
    await server.http("DELETE", f"{CONFIG_MAPS}/settings")
    refused = await create(server, "b")
    assert refused.status == 422
    assert "no params found for policy binding" in refused.json()["message"]


@pytest.mark.parametrize("policy", ["Fail", "Ignore"])
@pytest.mark.parametrize(
    ("mutation", "words"),
    [
        pytest.param(puts("a", "object.data.none"), "no such key: none", id="expression"),
        pytest.param(
            applies("Object{metadta: Object.metadta{}}"), ".metadta: field not declared in schema", id="field"
        ),
        pytest.param(patches("[JSONPatch{op: 'remove', path: '/x/y'}]"), "JSON Patch: ", id="patch"),
        pytest.param(applies("Object{data: {'a': 1}}"), "data", id="type"),
    ],
)
async def test_A48_what_fails_follows_the_failure_policy(
    server: RunningServer, mutation: dict[str, Any], words: str, policy: str
) -> None:
    # What the first mutation did is undone with the second.
    await register(server, puts("done", "'yes'"), mutation, failurePolicy=policy)
    reply = await create(server, k="v")
    if policy == "Ignore":
        assert reply.json()["data"] == {"k": "v"}
        return
    assert (reply.status, reply.json()["reason"]) == (422, "Invalid")
    message = reply.json()["message"]
    assert "policy 'demo' with binding 'demo-bound' denied request: " in message
    assert words in message


async def test_A48_the_authorizer_is_asked(server: RunningServer) -> None:
    may = "authorizer.group('').resource('secrets').namespace('default').check('get').allowed()"
    account = "authorizer.serviceAccount('default', 'default').group('').resource('secrets').check('get').allowed()"
    self = "authorizer.requestResource.check('delete').allowed()"
    path = "authorizer.path('/healthz').check('get').reason()"
    await register(
        server,
        *(
            puts(name, f"string({text})")
            for name, text in (("may", may), ("sa", account), ("self", self), ("why", path))
        ),
    )
    made = await create(server)
    assert made.status == 201, made.body
    assert {**made.json()["data"], "why": ""} == {"may": "true", "sa": "false", "self": "true", "why": ""}


async def test_A48_an_update_is_changed_and_a_dry_run_stores_nothing(server: RunningServer) -> None:
    await create(server, k="v")
    await register(server, puts("op", "request.operation"))
    path = f"{CONFIG_MAPS}/a"
    patched = await server.http(
        "PATCH", f"{path}?dryRun=All", {"data": {"k": "w"}}, content_type="application/merge-patch+json"
    )
    assert patched.json()["data"] == {"k": "w", "op": "UPDATE"}
    assert (await server.http("GET", path)).json()["data"] == {"k": "v"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param({"mutations": []}, "spec.mutations: Required value", id="nothing"),
        pytest.param({"mutations": [applies("Object{")]}, "Syntax error", id="syntax"),
        pytest.param({"mutations": [applies("Thing{}")]}, "undeclared reference to 'Thing'", id="type"),
        pytest.param({"mutations": [{"patchType": "JSONPatch"}]}, "jsonPatch: Required value", id="no patch"),
        pytest.param(
            {"mutations": [{**applies("Object{}"), "patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}]},
            "must not be specified when patchType is not ApplyConfiguration",
            id="both",
        ),
        pytest.param({"reinvocationPolicy": "Often"}, "reinvocationPolicy: Unsupported value", id="reinvocation"),
        pytest.param(
            {"matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
                                                     "operations": ["DELETE"], "resources": ["pods"]}]}},
            "Unsupported value: \"DELETE\"", id="operation",
        ),
        pytest.param({"variables": [{"name": "a", "expression": "objekt"}]}, "undeclared reference", id="variable"),
    ],
)  # fmt: skip
async def test_A48_what_can_not_work_is_refused_when_it_is_written(
    server: RunningServer, spec: dict[str, Any], words: str
) -> None:
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]
    whole = {
        "matchConstraints": {"resourceRules": rules},
        "mutations": [applies("Object{}")],
        "reinvocationPolicy": "Never",
        **spec,
    }
    body = {"metadata": {"name": "bad"}, "spec": whole}
    refused = await server.http("POST", f"{ADMISSION}/mutatingadmissionpolicies", body)
    assert refused.status == 422, refused.body
    assert words in refused.json()["message"]


async def test_A48_policies_are_printed_and_discovered(server: RunningServer) -> None:
    await register(server, applies("Object{}"))
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    table = (await server.http("GET", f"{ADMISSION}/mutatingadmissionpolicies", headers=accept)).json()
    assert table["rows"][0]["cells"][:3] == ["demo", 1, "<unset>"]
    group = (await server.http("GET", "/apis/admissionregistration.k8s.io")).json()
    assert [version["version"] for version in group["versions"]] == ["v1", "v1beta1"]
    assert group["preferredVersion"]["version"] == "v1"
