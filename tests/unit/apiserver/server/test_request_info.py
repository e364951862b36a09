"""What a path and method are read as."""

from __future__ import annotations

import pytest

from tiphys_apiserver.server.request_info import RequestInfo, parse

PODS = {"api_group": "", "api_version": "v1", "resource": "pods"}
DEPLOYMENTS = {"api_group": "apps", "api_version": "v1", "resource": "deployments"}

CASES = [
    pytest.param("GET", "/api/v1/pods", "list", PODS, id="all namespaces"),
    pytest.param("GET", "/api/v1/namespaces/a/pods", "list", {**PODS, "namespace": "a"}, id="list"),
    pytest.param("HEAD", "/api/v1/namespaces/a/pods/p", "get", {**PODS, "namespace": "a", "name": "p"}, id="head"),
    pytest.param("POST", "/api/v1/namespaces/a/pods", "create", {**PODS, "namespace": "a"}, id="create"),
    pytest.param(
        "DELETE", "/api/v1/namespaces/a/pods", "deletecollection", {**PODS, "namespace": "a"}, id="collection"
    ),
    pytest.param(
        "PUT",
        "/api/v1/namespaces/a/pods/p/status",
        "update",
        {**PODS, "namespace": "a", "name": "p", "subresource": "status"},
        id="status",
    ),
    pytest.param(
        "GET",
        "/api/v1/namespaces/a/pods/p/proxy/x/y",
        "get",
        {**PODS, "namespace": "a", "name": "p", "subresource": "proxy", "trailing": "x/y"},
        id="trailing path",
    ),
    pytest.param(
        "PATCH",
        "/apis/apps/v1/namespaces/a/deployments/d",
        "patch",
        {**DEPLOYMENTS, "namespace": "a", "name": "d"},
        id="group",
    ),
    pytest.param(
        "GET",
        "/api/v1/namespaces/a",
        "get",
        {"api_version": "v1", "resource": "namespaces", "namespace": "a", "name": "a"},
        id="a namespace is its own namespace",
    ),
    pytest.param(
        "PUT",
        "/api/v1/namespaces/a/finalize",
        "update",
        {"api_version": "v1", "resource": "namespaces", "namespace": "a", "name": "a", "subresource": "finalize"},
        id="subresource of a namespace",
    ),
    pytest.param("GET", "/api/v1/watch/pods", "watch", PODS, id="old form of a watch"),
]


@pytest.mark.parametrize(("method", "path", "verb", "fields"), CASES)
def test_resource_requests(method: str, path: str, verb: str, fields: dict[str, str]) -> None:
    assert parse(method, path) == RequestInfo(path, verb, True, **fields)


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "/api//pods"]
)
def test_other_paths_are_no_resource_requests(path: str) -> None:
    assert parse("GET", path) == RequestInfo(path, "get")


def test_watch_and_selected_name() -> None:
    info = parse("GET", "/api/v1/namespaces/a/configmaps", watch=True, selected_name="c")
    assert (info.verb, info.name) == ("watch", "c")
    assert parse("POST", "/api/v1/namespaces/a/configmaps", selected_name="c").name == ""


def test_what_was_asked_last_is_read_once() -> None:
    assert parse("POST", "/api/v1/namespaces/a/pods") is parse("POST", "/api/v1/namespaces/a/pods")


def test_long_paths_are_not_kept() -> None:
    path = f"/api/v1/namespaces/a/pods/{'p' * 300}"
    assert parse("GET", path) == parse("GET", path)
    assert parse("GET", path) is not parse("GET", path)
