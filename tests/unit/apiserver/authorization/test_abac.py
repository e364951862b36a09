"""ABAC: what a file of policies allows, and that RBAC can say the same."""

from __future__ import annotations

import pytest

from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.authorization.abac import ABACAuthorizer, PolicyFileError
from tiphys_apiserver.authorization.interface import Attributes, Verdict

_START = '{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": '
_FILE = "\n".join(
    [
        "# people",
        _START + '{"user": "alice", "namespace": "*", "resource": "*", "apiGroup": "*", "nonResourcePath": "*"}}',
        _START + '{"user": "bob", "namespace": "projects", "resource": "pods", "readonly": true}}',
        _START + '{"group": "ops", "resource": "nodes"}}',
        _START + '{"group": "*", "nonResourcePath": "/version*", "readonly": true}}',
        _START + '{"namespace": "*", "resource": "*"}}',
        "",
        '{"user": "old", "resource": "services"}',
    ]
)


def _ask(user: str, verb: str, resource: str, namespace: str = "", *, group: str = "", path: str = "") -> Attributes:
    groups = ("ops", "system:authenticated") if user == "olga" else ("system:authenticated",)
    if path:
        return Attributes(UserInfo(user, groups=groups), verb, False, path=path)
    return Attributes(
        UserInfo(user, groups=groups), verb, True, api_group=group, resource=resource, namespace=namespace
    )


@pytest.mark.parametrize(
    ("question", "allowed"),
    [
        pytest.param(_ask("alice", "delete", "deployments", "x", group="apps"), True, id="everything"),
        pytest.param(_ask("alice", "get", "", path="/metrics"), True, id="every path"),
        pytest.param(_ask("bob", "list", "pods", "projects"), True, id="reading"),
        pytest.param(_ask("bob", "delete", "pods", "projects"), False, id="readonly"),
        pytest.param(_ask("bob", "get", "pods", "other"), False, id="another namespace"),
        pytest.param(_ask("bob", "get", "pods", "projects", group="metrics.k8s.io"), False, id="another group"),
        pytest.param(_ask("olga", "update", "nodes"), True, id="by group, cluster scope"),
        pytest.param(_ask("olga", "update", "nodes", "x"), False, id="empty fits only what is empty"),
        pytest.param(_ask("carol", "get", "", path="/version/"), True, id="everybody, path by prefix"),
        pytest.param(_ask("carol", "post", "", path="/version/"), False, id="path readonly"),
        pytest.param(_ask("carol", "get", "pods", "x"), False, id="policy about nobody"),
        pytest.param(_ask("old", "update", "services", "x", group="g"), True, id="without version"),
    ],
)
async def test_H2_policy_file_allows(question: Attributes, allowed: bool) -> None:
    decision = await ABACAuthorizer(_FILE).authorize(question)

    assert decision.verdict is (Verdict.ALLOW if allowed else Verdict.NO_OPINION)


async def test_user_not_authenticated_is_not_everybody() -> None:
    nobody = Attributes(UserInfo("system:anonymous", groups=("system:unauthenticated",)), "get", False, path="/version")

    assert not (await ABACAuthorizer(_FILE).authorize(nobody)).allowed


async def test_rules_of_a_user_can_be_listed() -> None:
    rules = await ABACAuthorizer(_FILE).rules_for(UserInfo("bob", groups=("system:authenticated",)), "projects")

    assert [(rule.verbs, rule.resources) for rule in rules.resource_rules] == [(("get", "list", "watch"), ("pods",))]
    assert [rule.paths for rule in rules.non_resource_rules] == [("/version*",)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param("{", "line 1: it is no JSON", id="no JSON"),
        pytest.param("[]", "line 1: it is no JSON object", id="a list"),
        pytest.param('{"apiVersion": "v1", "kind": "Pod"}', "line 1: it is no abac", id="another kind"),
        pytest.param(_START.removesuffix(', "spec": ') + "}", "line 1: it has no spec", id="no spec"),
    ],
)
def test_file_that_cannot_be_used_is_refused_with_the_line(line: str, said: str) -> None:
    with pytest.raises(PolicyFileError, match=said):
        ABACAuthorizer(line)
