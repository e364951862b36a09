"""Who is who, what they may do, and that two tenants of one cluster do not meet."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from tests.integration.apiserver.test_access import RBAC, made, pod
from tests.support.apiserver import RunningServer
from tiphys.apiserver.v1 import wire_pb2

WHOAMI = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
REVIEWS = "/apis/authorization.k8s.io/v1"
OURS, THEIRS = "/api/v1/namespaces/ours", "/api/v1/namespaces/theirs"
# Classes whose pods push others aside; those of the system are open to all where no quota closes them, as upstream.
_PUSHING = ["urgent", "system-node-critical", "system-cluster-critical"]
MERGE = "application/merge-patch+json"


async def bearer(server: RunningServer, namespace: str, account: str) -> dict[str, str]:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    await made(server, path, {"metadata": {"name": account}})
    token = (await made(server, f"{path}/{account}/token", {"spec": {}}))["status"]["token"]
    return {"Authorization": f"Bearer {token}"}


async def test_H4_people_belong_to_no_namespace_and_programs_to_one(server: RunningServer) -> None:
    person = (await made(server, WHOAMI, {}, user="alice"))["status"]["userInfo"]
    assert person["username"] == "alice"
    assert person["groups"] == ["dev", "system:authenticated"]
    await made(server, "/api/v1/namespaces", {"metadata": {"name": "robots"}})
    shown = await bearer(server, "robots", "builder")
    program = (await made(server, WHOAMI, {}, user=None, headers=shown))["status"]["userInfo"]
    assert program["username"] == "system:serviceaccount:robots:builder"
    assert program["groups"] == ["system:serviceaccounts", "system:serviceaccounts:robots", "system:authenticated"]
    assert (
        program["uid"]
        == (await server.http("GET", "/api/v1/namespaces/robots/serviceaccounts/builder")).json()["metadata"]["uid"]
    )
    # One role for all programs of a namespace; the person has it only by name.
    rule = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    group = {"kind": "Group", "name": "system:serviceaccounts:robots", "apiGroup": "rbac.authorization.k8s.io"}
    binding = {"metadata": {"name": "all"}, "roleRef": rule, "subjects": [group]}
    await made(server, f"{RBAC}/namespaces/default/rolebindings", binding)
    pods = "/api/v1/namespaces/default/pods"
    assert (await server.http("GET", pods, user=None, headers=shown)).status == 200
    assert (await server.http("GET", pods, user="alice")).status == 403


def review(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}


async def test_H9_the_four_reviews_tell_what_requests_find(server: RunningServer) -> None:
    rule = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
    user = {"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}
    binding = {"metadata": {"name": "edits"}, "roleRef": rule, "subjects": [user]}
    await made(server, f"{RBAC}/namespaces/default/rolebindings", binding)
    wanted = {"verb": "create", "group": "apps", "resource": "deployments", "namespace": "default"}
    cases: tuple[tuple[dict[str, str], bool], ...] = (
        ({}, True),
        ({"namespace": "kube-system"}, False),
        ({"verb": "escalate"}, False),
        ({"namespace": ""}, False),
    )
    for change, allowed in cases:
        about = {**wanted, **change}
        asked = review("SubjectAccessReview", {"user": "alice", "resourceAttributes": about})
        answer = await made(server, f"{REVIEWS}/subjectaccessreviews", asked)
        assert answer["status"]["allowed"] is allowed, change
        mine = review("SelfSubjectAccessReview", {"resourceAttributes": about})
        own = await made(server, f"{REVIEWS}/selfsubjectaccessreviews", mine, user="alice")
        assert own["status"]["allowed"] is allowed, change
    local = review("LocalSubjectAccessReview", {"user": "alice", "resourceAttributes": wanted})
    path = f"{REVIEWS}/namespaces/default/localsubjectaccessreviews"
    assert (await made(server, path, local))["status"]["allowed"] is True
    other = await server.http("POST", f"{REVIEWS}/namespaces/kube-system/localsubjectaccessreviews", local)
    assert other.status == 400
    assert "spec.resourceAttributes.namespace must match namespace" in other.json()["message"]
    rules = review("SelfSubjectRulesReview", {"namespace": "default"})
    listed = (await made(server, f"{REVIEWS}/selfsubjectrulesreviews", rules, user="alice"))["status"]
    assert any("deployments" in one["resources"] and "create" in one["verbs"] for one in listed["resourceRules"])
    assert any("/healthz" in one["nonResourceURLs"] for one in listed["nonResourceRules"])
    assert listed["incomplete"] is False


async def test_H9_reviews_say_why_and_ask_of_paths_and_groups(server: RunningServer) -> None:
    asked = review(
        "SubjectAccessReview", {"groups": ["system:masters"], "nonResourceAttributes": {"verb": "get", "path": "/x"}}
    )
    assert (await made(server, f"{REVIEWS}/subjectaccessreviews", asked))["status"]["allowed"] is True
    asked = review(
        "SubjectAccessReview",
        {"user": "system:kube-scheduler", "resourceAttributes": {"verb": "list", "resource": "pods"}},
    )
    status = (await made(server, f"{REVIEWS}/subjectaccessreviews", asked))["status"]
    assert status["allowed"] is True
    assert 'ClusterRoleBinding "system:kube-scheduler"' in status["reason"]


BAD_SELECTORS = [
    pytest.param(
        {"rawSelector": "a=b", "requirements": [{"key": "a", "operator": "In", "values": ["b"]}]},
        "requirements",
        id="both",
    ),
    pytest.param({}, "rawSelector must be specified", id="neither"),
]


@pytest.mark.parametrize("kind", ["fieldSelector", "labelSelector"])
@pytest.mark.parametrize(("selector", "message"), BAD_SELECTORS)
async def test_H9_selectors_of_a_review_are_said_in_one_way(
    server: RunningServer, kind: str, selector: dict[str, Any], message: str
) -> None:
    about = {"verb": "list", "resource": "pods", kind: selector}
    reply = await server.http(
        "POST", f"{REVIEWS}/selfsubjectaccessreviews", review("SelfSubjectAccessReview", {"resourceAttributes": about})
    )
    assert (reply.status, reply.json()["reason"]) == (422, "Invalid")
    assert f"spec.resourceAttributes.{kind}" in reply.json()["message"]
    assert message in reply.json()["message"]


async def two_tenants(server: RunningServer) -> None:
    """Two namespaces; alice is admin of hers, under a quota and the restricted standard."""
    labels = {"pod-security.kubernetes.io/enforce": "baseline"}
    await made(server, "/api/v1/namespaces", {"metadata": {"name": "ours", "labels": labels}})
    await made(server, "/api/v1/namespaces", {"metadata": {"name": "theirs"}})
    rule = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"}
    user = {"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}
    binding = {"metadata": {"name": "admin"}, "roleRef": rule, "subjects": [user]}
    await made(server, f"{RBAC}/namespaces/ours/rolebindings", binding)
    for path in (OURS, THEIRS):
        await made(server, f"{path}/serviceaccounts", {"metadata": {"name": "default"}})
    await made(server, f"{THEIRS}/secrets", {"metadata": {"name": "key"}, "stringData": {"k": "v"}})
    await made(server, f"{THEIRS}/pods", pod("web"))


async def bound(server: RunningServer, name: str, spec: dict[str, Any]) -> None:
    """A quota of alice's namespace, with the status that the quota controller gives it."""
    quota = await made(server, f"{OURS}/resourcequotas", {"metadata": {"name": name}, "spec": spec})
    quota["status"] = {"hard": spec["hard"], "used": dict.fromkeys(spec["hard"], "0")}
    assert (await server.http("PUT", f"{OURS}/resourcequotas/{name}/status", quota)).status == 200


REACHES = [
    pytest.param("GET", "/api/v1/secrets", None, id="list everybody's secrets"),
    pytest.param("GET", f"{THEIRS}/secrets", None, id="list"),
    pytest.param("GET", f"{THEIRS}/secrets?watch=1", None, id="watch"),
    pytest.param("GET", f"{THEIRS}/secrets/key", None, id="get"),
    pytest.param("GET", "/api/v1/pods?fieldSelector=metadata.namespace=theirs", None, id="list by field"),
    pytest.param("POST", f"{THEIRS}/pods", pod("mine"), id="create"),
    pytest.param("DELETE", f"{THEIRS}/pods/web", None, id="delete"),
    pytest.param("DELETE", f"{THEIRS}/pods", None, id="delete all"),
    pytest.param("GET", f"{THEIRS}/pods/web/log", None, id="log"),
    pytest.param("POST", f"{THEIRS}/pods/web/exec?command=sh", None, id="exec"),
    pytest.param("GET", f"{THEIRS}/pods/web/proxy/", None, id="proxy to a pod"),
    pytest.param("GET", f"{THEIRS}/services/web/proxy/", None, id="proxy to a service"),
    pytest.param("POST", f"{THEIRS}/pods/web/eviction", {"metadata": {"name": "web"}}, id="evict"),
    pytest.param("POST", f"{THEIRS}/serviceaccounts/default/token", {"spec": {}}, id="token of their account"),
    pytest.param("POST", f"{RBAC}/namespaces/theirs/rolebindings", {"metadata": {"name": "me"}}, id="bind"),
    pytest.param("POST", f"{RBAC}/clusterrolebindings", {"metadata": {"name": "me"}}, id="bind everywhere"),
    pytest.param("GET", "/api/v1/nodes", None, id="nodes"),
    pytest.param("GET", "/api/v1/nodes/n1/proxy/pods", None, id="proxy to a kubelet"),
    pytest.param("GET", "/api/v1/persistentvolumes", None, id="volumes"),
    pytest.param("DELETE", "/api/v1/namespaces/theirs", None, id="delete the namespace"),
    pytest.param("DELETE", f"{OURS}/resourcequotas/bounds", None, id="own quota"),
]


async def test_H6_a_tenant_reaches_nothing_of_another(server: RunningServer) -> None:
    await two_tenants(server)
    for case in REACHES:
        method, path, body = case.values
        reply = await server.http(str(method), str(path), body, user="alice")
        assert reply.status == 403, (case.id, reply.status, reply.body)
    raised = await server.http(
        "PATCH",
        OURS,
        {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}},
        user="alice",
        content_type=MERGE,
    )
    assert raised.status == 403
    for headers in (
        {"Impersonate-User": "system:serviceaccount:theirs:default"},
        {"Impersonate-User": "alice", "Impersonate-Group": "system:masters"},
    ):
        assert (await server.http("GET", f"{THEIRS}/secrets", user="alice", headers=headers)).status == 403
    # What a program of theirs is told is told to nobody of ours; the other door is no other.
    shown = await bearer(server, "ours", "robot")
    assert (await server.http("GET", f"{THEIRS}/secrets/key", user=None, headers=shown)).status == 403
    request = wire_pb2.GetRequest(namespace="theirs", name="key")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await server.grpc("core.v1.SecretService", "Get", request, user="alice")
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    # And at home all goes well.
    assert (await server.http("POST", f"{OURS}/pods", pod("mine"), user="alice")).status == 201
    assert (await server.http("GET", f"{THEIRS}/pods/web")).status == 200


async def test_H6_a_tenant_gets_no_more_than_its_share(server: RunningServer) -> None:
    await two_tenants(server)
    await made(server, "/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": "urgent"}, "value": 1000000})
    await bound(server, "bounds", {"hard": {"pods": "2"}})
    urgent = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": _PUSHING}]}
    await bound(server, "no-urgent", {"hard": {"pods": "0"}, "scopeSelector": urgent})
    # It may not push others aside,
    for name in _PUSHING:
        refused = await server.http("POST", f"{OURS}/pods", pod("p", priorityClassName=name), user="alice")
        assert (refused.status, "exceeded quota: no-urgent" in refused.json()["message"]) == (403, True)
    # nor leave its container,
    escape = pod("p", hostPID=True, volumes=[{"name": "v", "hostPath": {"path": "/"}}])
    refused = await server.http("POST", f"{OURS}/pods", escape, user="alice")
    assert (refused.status, "violates PodSecurity" in refused.json()["message"]) == (403, True)
    # nor take more than it was given.
    for name in ("one", "two"):
        assert (await server.http("POST", f"{OURS}/pods", pod(name), user="alice")).status == 201
    full = await server.http("POST", f"{OURS}/pods", pod("three"), user="alice")
    assert (full.status, "exceeded quota: bounds" in full.json()["message"]) == (403, True)
    assert (await server.http("POST", f"{THEIRS}/pods", pod("more"))).status == 201
