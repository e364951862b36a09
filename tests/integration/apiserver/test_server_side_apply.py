"""Server-side apply through the server, over REST as clients send it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.apiserver import RunningServer

APPLY = "application/apply-patch+yaml"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {tier: front}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: busybox, ports: [{containerPort: 80}]}
"""


async def apply(
    server: RunningServer, text: str, manager: str = "ann", *, more: str = "", user: str = "admin", name: str = "web"
) -> Any:
    path = f"{DEPLOYMENTS}/{name}?fieldManager={manager}{more}"
    return await server.http("PATCH", path, text.encode(), content_type=APPLY, user=user)


def managers(obj: Any) -> list[tuple[str, str]]:
    return [(entry["manager"], entry["operation"]) for entry in obj["metadata"].get("managedFields", [])]


async def test_A30_apply_makes_the_object_and_repeats_without_a_write(server: RunningServer) -> None:
    made = await apply(server, WEB)
    assert (made.status, managers(made.json())) == (201, [("ann", "Apply")])
    again = await apply(server, WEB)
    assert again.status == 200
    assert again.json() == made.json()


async def test_A30_the_autoscaler_takes_replicas_and_apply_says_so(server: RunningServer) -> None:
    await apply(server, WEB)
    scale = {"spec": {"replicas": 5}}
    path = f"{DEPLOYMENTS}/web/scale?fieldManager=hpa"
    scaled = await server.http("PATCH", path, scale, content_type="application/merge-patch+json")
    assert scaled.json()["spec"]["replicas"] == 5
    refused = await apply(server, WEB)
    assert (refused.status, refused.json()["reason"]) == (409, "Conflict")
    assert 'conflict with "hpa" with subresource "scale" using apps/v1' in refused.json()["message"]
    assert refused.json()["details"]["causes"][0]["field"] == ".spec.replicas"
    let_go = await apply(server, WEB.replace("  replicas: 2\n", ""))
    assert (let_go.status, let_go.json()["spec"]["replicas"]) == (200, 5)
    forced = await apply(server, WEB, more="&force=true")
    assert (forced.status, forced.json()["spec"]["replicas"]) == (200, 2)


async def test_A30_status_has_owners_of_its_own(server: RunningServer) -> None:
    made = (await apply(server, WEB)).json()
    made["status"] = {"replicas": 1, "observedGeneration": 1}
    await server.http("PUT", f"{DEPLOYMENTS}/web/status?fieldManager=controller", made)
    obj = (await apply(server, WEB)).json()
    assert managers(obj) == [("ann", "Apply"), ("controller", "Update")]
    assert obj["metadata"]["managedFields"][1]["subresource"] == "status"
    assert obj["status"] == {"replicas": 1, "observedGeneration": 1}


@pytest.mark.parametrize(
    ("text", "manager", "status", "words"),
    [
        pytest.param(WEB, "", 422, "fieldManager: Required value: is required for apply patch", id="no manager"),
        pytest.param(
            WEB.replace("replicas", "replicaz"), "ann", 400, ".spec.replicaz: field not declared in schema", id="typo"
        ),
        pytest.param(WEB.replace("apps/v1", "v1"), "ann", 400, "expected apps/v1, Kind=Deployment", id="other kind"),
        pytest.param(
            WEB.replace("tier: front}", "tier: front}, managedFields: [{manager: x}]"), "ann", 400,
            "metadata.managedFields must be nil", id="managed fields",
        ),
        pytest.param("[]", "ann", 400, "not an object", id="list"),
        pytest.param(WEB.replace("2", "'2'"), "ann", 400, "cannot unmarshal", id="type"),
        pytest.param(WEB.replace("name: web, labels", "name: other, labels"), "ann", 400, "other", id="name"),
    ],
)  # fmt: skip
async def test_A30_bad_configurations_are_refused(
    server: RunningServer, text: str, manager: str, status: int, words: str
) -> None:
    reply = await apply(server, text, manager)
    assert reply.status == status, reply.body
    assert words in reply.json()["message"]
    assert (await server.http("GET", f"{DEPLOYMENTS}/web")).status == 404


async def test_A30_who_may_patch_but_not_create_makes_nothing_by_apply(server: RunningServer) -> None:
    rules = [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch", "update", "get"]}]
    await server.http(
        "POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", {"metadata": {"name": "p"}, "rules": rules}
    )
    binding = {
        "metadata": {"name": "p"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "p"},
        "subjects": [{"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    await server.http("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    for _ in range(1000):
        # The authorizer follows bindings by watch.
        if (await server.http("GET", f"{DEPLOYMENTS}/web", user="alice")).status != 403:
            break
    refused = await apply(server, WEB, user="alice")
    assert refused.status == 403
    assert 'cannot create resource "deployments"' in refused.json()["message"]
    await apply(server, WEB)
    assert (await apply(server, WEB, user="alice")).status == 200


async def test_A30_dry_run_of_apply_stores_nothing(server: RunningServer) -> None:
    assert (await apply(server, WEB, more="&dryRun=All")).status == 201
    assert (await server.http("GET", f"{DEPLOYMENTS}/web")).status == 404


async def test_objects_that_nobody_applies_keep_no_owners(server: RunningServer) -> None:
    """Pods of a ReplicaSet are written by four managers; nobody asks who wrote what."""
    made = await server.http(
        "POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "a"}, "data": {"k": "v"}}
    )
    assert "managedFields" not in made.json()["metadata"]
