"""The audit policy: which rule speaks of a request, and what a policy file may not say."""

from __future__ import annotations

import pytest

from tiphys_apiserver.audit.policy import Level, PolicyError, Stage, Verdict, read_policy
from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.server.request_info import parse

_HEAD = "apiVersion: audit.k8s.io/v1\nkind: Policy\n"
_ALICE = UserInfo("alice", groups=("dev", "system:authenticated"))

_POLICY = read_policy(
    f"""{_HEAD}
omitStages: [RequestReceived]
rules:
- level: None
  users: [bob]
- level: None
  nonResourceURLs: ["/healthz*", "/version"]
- level: Request
  verbs: [delete]
  userGroups: [dev]
  resources: [{{group: "", resources: [pods]}}]
  namespaces: [prod]
- level: RequestResponse
  resources: [{{group: "", resources: ["pods/status", "*/scale"]}}, {{group: apps, resources: ["deployments/*"]}}]
  omitStages: [ResponseStarted]
- level: Request
  resources: [{{group: "", resources: [configmaps], resourceNames: [settings]}}]
- level: RequestResponse
  resources: [{{group: batch}}]
- level: Metadata
  verbs: [create, update]
""".encode()
)


def _level(method: str, path: str, user: UserInfo = _ALICE) -> Level:
    return _POLICY.judge(user, parse(method, path)).level


@pytest.mark.parametrize(
    ("method", "path", "wanted"),
    [
        pytest.param("DELETE", "/api/v1/namespaces/prod/pods/a", Level.REQUEST, id="verb, group, resource, namespace"),
        pytest.param("DELETE", "/api/v1/namespaces/test/pods/a", Level.NONE, id="another namespace"),
        pytest.param("GET", "/api/v1/namespaces/prod/pods/a/status", Level.REQUEST_RESPONSE, id="subresource"),
        pytest.param(
            "GET", "/api/v1/namespaces/x/replicationcontrollers/a/scale", Level.REQUEST_RESPONSE, id="*/scale"
        ),
        pytest.param("GET", "/apis/apps/v1/namespaces/x/deployments/a/scale", Level.REQUEST_RESPONSE, id="resource/*"),
        pytest.param("GET", "/api/v1/namespaces/x/configmaps/settings", Level.REQUEST, id="by name"),
        pytest.param("GET", "/api/v1/namespaces/x/configmaps/other", Level.NONE, id="another name"),
        pytest.param("GET", "/apis/batch/v1/namespaces/x/jobs", Level.REQUEST_RESPONSE, id="a whole group"),
        pytest.param("GET", "/healthz/etcd", Level.NONE, id="path by prefix"),
        pytest.param("POST", "/api/v1/namespaces/x/services", Level.METADATA, id="what is left"),
        pytest.param("GET", "/api/v1/namespaces/x/services", Level.NONE, id="no rule fits"),
    ],
)
def test_first_rule_that_fits_decides(method: str, path: str, wanted: Level) -> None:
    assert _level(method, path) is wanted


def test_rule_of_a_user_speaks_of_nobody_else() -> None:
    path = "/api/v1/namespaces/x/services"

    assert _level("POST", path, UserInfo("bob")) is Level.NONE
    assert _level("POST", path, UserInfo("carol")) is Level.METADATA


def test_stages_of_policy_and_rule_are_left_out() -> None:
    verdict = _POLICY.judge(_ALICE, parse("GET", "/api/v1/namespaces/prod/pods/a/status"))

    assert verdict.omit_stages == {Stage.REQUEST_RECEIVED, Stage.RESPONSE_STARTED}


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [
        pytest.param("", Level.METADATA, id="catch-all"),
        pytest.param('resources: [{group: ""}]', Level.METADATA, id="the whole group"),
        pytest.param('resources: [{group: "", resources: ["*"]}]', Level.METADATA, id="star"),
        pytest.param('resources: [{group: "", resources: [secrets]}]', Level.REQUEST_RESPONSE, id="named"),
    ],
)
def test_bodies_of_secrets_are_noted_only_where_a_rule_names_them(resources: str, wanted: Level) -> None:
    policy = read_policy(f"{_HEAD}rules:\n- level: RequestResponse\n  {resources}\n".encode())

    assert policy.judge(_ALICE, parse("GET", "/api/v1/namespaces/x/secrets/s")).level is wanted
    assert policy.judge(_ALICE, parse("GET", "/version")).level is (Level.NONE if resources else Level.REQUEST_RESPONSE)


def test_rule_overrules_the_policy_on_managed_fields() -> None:
    policy = read_policy(
        f"{_HEAD}omitManagedFields: true\nrules:\n- {{level: Metadata, omitManagedFields: false, verbs: [get]}}\n"
        "- {level: Metadata}\n".encode()
    )

    assert policy.judge(_ALICE, parse("GET", "/version")) == Verdict(Level.METADATA)
    assert policy.judge(_ALICE, parse("POST", "/version")).omit_managed_fields


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "empty", id="empty"),
        pytest.param("apiVersion: v1\nkind: Pod\n", "no audit.k8s.io/v1 Policy", id="another kind"),
        pytest.param(_HEAD, "no rules", id="no rules"),
        pytest.param(f"{_HEAD}rules: [{{level: All}}]", r"rules\[0\].level: 'All'", id="level"),
        pytest.param(f"{_HEAD}omitStages: [Never]\nrules: [{{level: None}}]", "Never", id="stage"),
        pytest.param(
            f'{_HEAD}rules: [{{level: None, namespaces: [x], nonResourceURLs: ["/a"]}}]', "both", id="both kinds"
        ),
        pytest.param(f"{_HEAD}rules: [{{level: None, nonResourceURLs: [a]}}]", "does not begin", id="url"),
        pytest.param(f"{_HEAD}rules: [{{level: None, users: bob}}]", "no list", id="text for a list"),
        pytest.param(
            f'{_HEAD}rules: [{{level: None, resources: [{{group: "", resourceNames: [a]}}]}}]',
            "resourceNames need",
            id="names without resources",
        ),
        pytest.param("a: [", "yaml", id="no YAML"),
    ],
)
def test_policy_that_cannot_be_used_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(PolicyError, match=f"(?i){said}"):
        read_policy(text.encode())
