"""The words of a refusal."""

from __future__ import annotations

import pytest

from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.authorization.forbidden import forbidden
from tiphys_apiserver.authorization.interface import Attributes

_X = UserInfo("x")


@pytest.mark.parametrize(
    ("question", "reason", "text"),
    [
        pytest.param(
            Attributes(_X, "list", True, resource="pods", namespace="y"), "",
            'pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "y"',
            id="list in a namespace",
        ),
        pytest.param(
            Attributes(_X, "get", True, api_group="apps", resource="deployments", name="d", namespace="y"), "",
            'deployments.apps "d" is forbidden: User "x" cannot get resource "deployments" in API group "apps"'
            ' in the namespace "y"',
            id="one object of a group",
        ),
        pytest.param(
            Attributes(_X, "create", True, resource="pods", subresource="exec", name="p"), "because",
            'pods "p" is forbidden: User "x" cannot create resource "pods/exec" in API group "" at the cluster scope:'
            " because",
            id="subresource with a reason",
        ),
        pytest.param(
            Attributes(_X, "get", False, path="/metrics"), "", 'forbidden: User "x" cannot get path "/metrics"',
            id="path",
        ),
    ],
)  # fmt: skip
def test_refusal_reads_as_kubernetes_writes_it(question: Attributes, reason: str, text: str) -> None:
    error = forbidden(question, reason)
    assert (error.code, error.reason, error.message) == (403, "Forbidden", text)
