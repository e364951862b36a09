"""What RBAC rules allow and cover."""

from __future__ import annotations

import pytest

from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.authorization.interface import Attributes
from tiphys_apiserver.authorization.rules import PolicyRule, compact, rule_allows, uncovered

_USER = UserInfo("ann")
_READ_PODS = PolicyRule(("get", "list"), ("",), ("pods",))


def ask(verb: str, resource: str, *, group: str = "", name: str = "") -> Attributes:
    plural, _, subresource = resource.partition("/")
    return Attributes(_USER, verb, True, api_group=group, resource=plural, subresource=subresource, name=name)


@pytest.mark.parametrize(
    ("rule", "question", "allowed"),
    [
        pytest.param(_READ_PODS, ask("get", "pods"), True, id="exact"),
        pytest.param(_READ_PODS, ask("delete", "pods"), False, id="other verb"),
        pytest.param(_READ_PODS, ask("get", "pods", group="apps"), False, id="other group"),
        pytest.param(_READ_PODS, ask("get", "pods/log"), False, id="subresource is not its resource"),
        pytest.param(PolicyRule(("*",), ("*",), ("*",)), ask("get", "pods/log"), True, id="star is subresources too"),
        pytest.param(PolicyRule(("get",), ("",), ("*/scale",)), ask("get", "x/scale"), True, id="any scale"),
        pytest.param(PolicyRule(("get",), ("",), ("*/scale",)), ask("get", "x"), False, id="scale only"),
        pytest.param(PolicyRule(("get",), ("",), ("pods",), ("a",)), ask("get", "pods", name="a"), True, id="named"),
        pytest.param(PolicyRule(("get",), ("",), ("pods",), ("a",)), ask("get", "pods", name="b"), False, id="other"),
        pytest.param(PolicyRule(("list",), ("",), ("pods",), ("a",)), ask("list", "pods"), False, id="name, asked all"),
    ],
)
def test_rule_allows_resources(rule: PolicyRule, question: Attributes, allowed: bool) -> None:
    assert rule_allows(rule, question) is allowed


@pytest.mark.parametrize(
    ("url", "path", "allowed"),
    [
        ("/healthz", "/healthz", True),
        ("/healthz", "/healthz/etcd", False),
        ("/healthz/*", "/healthz/etcd", True),
        ("/healthz*", "/healthz", True),
        ("*", "/anything", True),
    ],
)
def test_rule_allows_paths(url: str, path: str, allowed: bool) -> None:
    rule = PolicyRule(("get",), non_resource_urls=(url,))
    assert rule_allows(rule, Attributes(_USER, "get", False, path=path)) is allowed


def test_rule_on_paths_says_nothing_of_resources() -> None:
    assert not rule_allows(PolicyRule(("*",), non_resource_urls=("*",)), ask("get", "pods"))


@pytest.mark.parametrize(
    ("held", "wanted", "missing"),
    [
        pytest.param([_READ_PODS], [PolicyRule(("get",), ("",), ("pods",))], 0, id="less"),
        pytest.param([_READ_PODS], [PolicyRule(("get", "delete"), ("",), ("pods",))], 1, id="one verb more"),
        pytest.param([_READ_PODS], [PolicyRule(("*",), ("",), ("pods",))], 1, id="star is not its parts"),
        pytest.param([PolicyRule(("*",), ("*",), ("*",))], [_READ_PODS], 0, id="star covers"),
        pytest.param([PolicyRule(("get",), ("",), ("pods",), ("a",))], [_READ_PODS], 2, id="name does not cover all"),
        pytest.param([_READ_PODS], [PolicyRule(("get",), ("",), ("pods",), ("a",))], 0, id="all covers a name"),
        pytest.param([], [PolicyRule(("get",), non_resource_urls=("/a", "/b"))], 2, id="paths"),
        pytest.param(
            [PolicyRule(("get",), non_resource_urls=("/a*",))], [PolicyRule(("get",), non_resource_urls=("/ab",))], 0,
            id="path prefix",
        ),
    ],
)  # fmt: skip
def test_uncovered_breaks_down_what_is_not_held(held: list[PolicyRule], wanted: list[PolicyRule], missing: int) -> None:
    assert len(uncovered(held, wanted)) == missing


def test_compact_joins_verbs_of_equal_rules_and_describes_them_as_kubernetes_does() -> None:
    rules = uncovered([], [PolicyRule(("get", "list"), ("apps",), ("deployments",))])
    assert [rule.describe() for rule in compact(rules)] == [
        '{APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]}'
    ]
