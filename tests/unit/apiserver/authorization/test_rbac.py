"""The RBAC authorizer over stored roles and bindings."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.fake_objects import FakeObjects, build
from tiphys.api.rbac.v1.rbac_pb2 import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.authorization.interface import Attributes, Verdict
from tiphys_apiserver.authorization.rbac import RBACAuthorizer

RBAC = "rbac.authorization.k8s.io"


def rule(verbs: str, resources: str, groups: str = "") -> dict[str, Any]:
    return {"verbs": verbs.split(), "apiGroups": [groups], "resources": resources.split()}


def cluster_role(name: str, *rules: dict[str, Any], **more: Any) -> ClusterRole:
    metadata = {"name": name, **more.pop("metadata", {})}
    return build(ClusterRole, metadata=metadata, rules=list(rules), **more)


def role(namespace: str, name: str, *rules: dict[str, Any]) -> Role:
    return build(Role, metadata={"name": name, "namespace": namespace}, rules=list(rules))


def subject(kind: str, name: str, namespace: str = "") -> dict[str, Any]:
    return {"kind": kind, "name": name, "namespace": namespace} if namespace else {"kind": kind, "name": name}


def cluster_binding(name: str, to: str, *subjects: dict[str, Any]) -> ClusterRoleBinding:
    reference = {"apiGroup": RBAC, "kind": "ClusterRole", "name": to}
    return build(ClusterRoleBinding, metadata={"name": name}, roleRef=reference, subjects=list(subjects))


def binding(namespace: str, name: str, kind: str, to: str, *subjects: dict[str, Any]) -> RoleBinding:
    reference = {"apiGroup": RBAC, "kind": kind, "name": to}
    metadata = {"name": name, "namespace": namespace}
    return build(RoleBinding, metadata=metadata, roleRef=reference, subjects=list(subjects))


def ask(user: UserInfo, verb: str, resource: str, namespace: str = "", name: str = "") -> Attributes:
    return Attributes(user, verb, True, resource=resource, namespace=namespace, name=name)


ANN = UserInfo("ann", groups=("dev", "system:authenticated"))
BOT = UserInfo("system:serviceaccount:ci:bot", groups=("system:serviceaccounts",))


@pytest.fixture
def objects() -> FakeObjects:
    return FakeObjects(
        cluster_role("pod-reader", rule("get list", "pods")),
        role("web", "editor", rule("update", "pods")),
        cluster_binding("devs-read", "pod-reader", subject("Group", "dev")),
        binding("web", "ann-edits", "Role", "editor", subject("User", "ann")),
        binding("web", "bot-reads", "ClusterRole", "pod-reader", subject("ServiceAccount", "bot", "ci")),
    )


@pytest.mark.parametrize(
    ("question", "allowed"),
    [
        pytest.param(ask(ANN, "list", "pods"), True, id="cluster-wide by group"),
        pytest.param(ask(ANN, "list", "pods", "web"), True, id="cluster-wide counts in a namespace"),
        pytest.param(ask(ANN, "update", "pods", "web"), True, id="role by user"),
        pytest.param(ask(ANN, "update", "pods", "other"), False, id="role only in its namespace"),
        pytest.param(ask(ANN, "update", "pods"), False, id="role not cluster-wide"),
        pytest.param(ask(BOT, "get", "pods", "web"), True, id="cluster role by binding of a namespace"),
        pytest.param(ask(BOT, "get", "pods", "ci"), False, id="not in the account's own namespace"),
        pytest.param(ask(UserInfo("eve"), "get", "pods"), False, id="stranger"),
    ],
)
async def test_H3_roles_and_bindings_decide(objects: FakeObjects, question: Attributes, allowed: bool) -> None:
    assert (await RBACAuthorizer(objects).authorize(question)).allowed is allowed


async def test_refusal_is_no_opinion_so_that_others_may_allow(objects: FakeObjects) -> None:
    decision = await RBACAuthorizer(objects).authorize(ask(UserInfo("eve"), "get", "pods"))
    assert decision.verdict is Verdict.NO_OPINION


async def test_change_of_a_role_counts_at_the_next_question(objects: FakeObjects) -> None:
    rbac = RBACAuthorizer(objects)
    question = ask(ANN, "delete", "pods")
    assert not (await rbac.authorize(question)).allowed
    objects.put(cluster_role("pod-reader", rule("get list delete", "pods")))
    assert (await rbac.authorize(question)).allowed
    await objects.delete(ClusterRoleBinding, "devs-read")
    assert not (await rbac.authorize(question)).allowed


async def test_binding_to_a_missing_role_grants_when_the_role_comes(objects: FakeObjects) -> None:
    rbac = RBACAuthorizer(objects)
    objects.put(cluster_binding("early", "later", subject("User", "ann")))
    assert not (await rbac.authorize(ask(ANN, "get", "nodes"))).allowed
    objects.put(cluster_role("later", rule("get", "nodes")))
    assert (await rbac.authorize(ask(ANN, "get", "nodes"))).allowed


async def test_resource_names_allow_only_those_objects(objects: FakeObjects) -> None:
    named = {**rule("get", "secrets"), "resourceNames": ["one"]}
    objects.put(role("web", "one-secret", named))
    objects.put(binding("web", "b", "Role", "one-secret", subject("User", "ann")))
    rbac = RBACAuthorizer(objects)
    assert (await rbac.authorize(ask(ANN, "get", "secrets", "web", "one"))).allowed
    assert not (await rbac.authorize(ask(ANN, "get", "secrets", "web", "two"))).allowed
    assert not (await rbac.authorize(ask(ANN, "get", "secrets", "web"))).allowed


async def test_aggregated_roles_hold_what_their_labels_select_through_several_steps(objects: FakeObjects) -> None:
    def aggregated(name: str, label: str, **labels: str) -> ClusterRole:
        selectors = {"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]}
        return cluster_role(name, aggregationRule=selectors, metadata={"labels": labels})

    objects.put(aggregated("top", "to-top"))
    objects.put(aggregated("middle", "to-middle", **{"to-top": "true"}))
    objects.put(cluster_role("leaf", rule("get", "widgets"), metadata={"labels": {"to-middle": "true"}}))
    objects.put(cluster_binding("b", "top", subject("User", "ann")))
    assert (await RBACAuthorizer(objects).authorize(ask(ANN, "get", "widgets"))).allowed


async def test_rules_for_lists_what_is_held_in_the_namespace(objects: FakeObjects) -> None:
    rules = await RBACAuthorizer(objects).rules_for(ANN, "web")
    assert sorted(rule.verbs for rule in rules.resource_rules) == [("get", "list"), ("update",)]
    assert not rules.incomplete
