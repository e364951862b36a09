"""ValidatingAdmissionPolicies and webhooks' conditions through the server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.apiserver import RunningServer

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
RULES = {
    "resourceRules": [
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}
    ]
}


async def register(server: RunningServer, *validations: Any, actions: list[str] | None = None, **spec: Any) -> None:
    binding = spec.pop("binding", {})
    policy = {
        "metadata": {"name": "demo"},
        "spec": {"matchConstraints": RULES, "validations": list(validations), **spec},
    }
    reply = await server.http("POST", f"{ADMISSION}/validatingadmissionpolicies", policy)
    assert reply.status == 201, reply.body
    bound = {
        "metadata": {"name": "bound"},
        "spec": {"policyName": "demo", "validationActions": actions or ["Deny"], **binding},
    }
    reply = await server.http("POST", f"{ADMISSION}/validatingadmissionpolicybindings", bound)
    assert reply.status == 201, reply.body


async def create(server: RunningServer, name: str = "a", namespace: str = "default", **data: str) -> Any:
    return await server.http(
        "POST", f"/api/v1/namespaces/{namespace}/configmaps", {"metadata": {"name": name}, "data": data}
    )


WHO = "ValidatingAdmissionPolicy 'demo' with binding 'bound'"


async def test_A47_a_policy_refuses_what_its_expression_forbids(server: RunningServer) -> None:
    await register(server, {"expression": "object.data.size() <= int(object.data.most)"})
    refused = await create(server, most="1", extra="x")
    assert (refused.status, refused.json()["reason"]) == (422, "Invalid")
    assert refused.json()["message"] == (
        f'configmaps "a" is forbidden: {WHO} denied request:'
        " failed expression: object.data.size() <= int(object.data.most)"
    )
    assert (await create(server, most="2", extra="x")).status == 201


async def test_A47_message_reason_variables_and_the_request(server: RunningServer) -> None:
    await register(
        server,
        {
            "expression": "variables.short && request.userInfo.username == 'nobody'",
            "messageExpression": "'not for ' + request.userInfo.username + ' in ' + namespaceObject.metadata.name",
            "reason": "Forbidden",
        },
        variables=[{"name": "short", "expression": "object.metadata.name.size() < 5"}],
    )
    refused = await create(server)
    assert (refused.status, refused.json()["reason"]) == (403, "Forbidden")
    assert refused.json()["message"].endswith("denied request: not for admin in default")


async def test_A47_a_policy_may_only_warn(server: RunningServer) -> None:
    await register(server, {"expression": "false", "message": "better not"}, actions=["Warn"])
    made = await create(server)
    assert made.status == 201
    assert made.header("warning") == [f'299 - "Validation failed for {WHO}: better not"']


@pytest.mark.parametrize(("policy", "status"), [("Fail", 422), ("Ignore", 201)])
async def test_A47_an_expression_without_value_follows_the_failure_policy(
    server: RunningServer, policy: str, status: int
) -> None:
    await register(server, {"expression": "object.data.none == 'x'"}, failurePolicy=policy)
    reply = await create(server, k="v")
    assert reply.status == status
    if status == 422:
        assert "expression 'object.data.none == 'x'' resulted in error: no such key: none" in reply.json()["message"]


async def test_A47_conditions_and_selectors_choose_what_it_is_about(server: RunningServer) -> None:
    await server.http("POST", "/api/v1/namespaces", {"metadata": {"name": "free"}})
    await register(
        server,
        {"expression": "false"},
        matchConditions=[{"name": "named", "expression": "object.metadata.name.startsWith('x')"}],
        binding={"matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}},
    )
    assert (await create(server, "a")).status == 201
    assert (await create(server, "x")).status == 422
    assert (await create(server, "x", "free")).status == 201


async def test_A47_parameters_come_from_another_object(server: RunningServer) -> None:
    await create(server, "limits", most="1")
    await register(
        server,
        {"expression": "object.metadata.name == 'limits' || object.data.size() <= int(params.data.most)"},
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        binding={"paramRef": {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"}},
    )
    assert (await create(server, "a", k="v")).status == 201
    assert (await create(server, "b", k="v", l="w")).status == 422
    await server.http("DELETE", f"{CONFIG_MAPS}/limits")
    missing = await create(server, "c", k="v")
    assert "no params found for policy binding" in missing.json()["message"]


async def test_A47_updates_see_what_was_before(server: RunningServer) -> None:
    await create(server, k="v")
    await register(server, {"expression": "oldObject == null || object.data.k == oldObject.data.k"})
    changed = {"metadata": {"name": "a"}, "data": {"k": "w"}}
    assert (await server.http("PUT", f"{CONFIG_MAPS}/a", changed)).status == 422
    assert (await server.http("PUT", f"{CONFIG_MAPS}/a", {**changed, "data": {"k": "v", "l": "x"}})).status == 200


@pytest.mark.parametrize(
    ("kind", "body", "fault"),
    [
        pytest.param(
            "validatingadmissionpolicies",
            {"spec": {"matchConstraints": RULES, "validations": [{"expression": "objekt.x == 1"}]}},
            'spec.validations[0].expression: Invalid value: "objekt.x == 1": compilation failed: ERROR: <input>:1:1:'
            " undeclared reference to 'objekt'", id="expression",
        ),
        pytest.param(
            "validatingadmissionpolicies", {"spec": {"matchConstraints": RULES}},
            "validations or auditAnnotations must contain at least one item", id="nothing",
        ),
        pytest.param(
            "validatingwebhookconfigurations",
            {"webhooks": [{"name": "short", "clientConfig": {"url": "http://x"}, "sideEffects": "None",
                           "admissionReviewVersions": ["v1"]}]},
            "should be a domain with at least three segments", id="webhook's name",
        ),
        pytest.param(
            "mutatingwebhookconfigurations",
            {"webhooks": [{"name": "a.b.c", "clientConfig": {"url": "http://x"}, "sideEffects": "None",
                           "admissionReviewVersions": ["v1"]}]},
            "'https' is the only allowed URL scheme", id="webhook's URL",
        ),
    ],
)  # fmt: skip
async def test_A47_what_can_not_work_is_refused_when_it_is_written(
    server: RunningServer, kind: str, body: dict[str, Any], fault: str
) -> None:
    reply = await server.http("POST", f"{ADMISSION}/{kind}", {"metadata": {"name": "bad"}, **body})
    assert reply.status == 422, reply.body
    assert fault in reply.json()["message"]
