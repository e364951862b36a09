"""The scheme knows every kind and resource of the published contracts."""

from __future__ import annotations

import pytest

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.scheme import gvk, load_default

_SCHEME = load_default()


def test_resource_is_found_by_path_kind_and_message() -> None:
    found = _SCHEME.by_resource("apps", "v1", "deployments")
    assert found is not None
    assert found is _SCHEME.by_kind("apps/v1", "Deployment")
    assert found is _SCHEME.by_message(apps_pb2.Deployment)
    assert found.message is apps_pb2.Deployment
    assert found.list_message is apps_pb2.DeploymentList
    assert found.namespaced
    assert found.short_names == ("deploy",)
    assert found.subresources["scale"].kind == "Scale"
    assert found.columns[0].name == "Name"


@pytest.mark.parametrize(
    ("group", "plural", "prefix"),
    [
        ("", "pods", "/registry/pods"),
        ("", "services", "/registry/services/specs"),
        ("", "endpoints", "/registry/services/endpoints"),
        ("", "nodes", "/registry/minions"),
        ("", "replicationcontrollers", "/registry/controllers"),
        ("networking.k8s.io", "ingresses", "/registry/ingress"),
        ("apps", "deployments", "/registry/deployments"),
        ("coordination.k8s.io", "leases", "/registry/leases"),
    ],
)
def test_storage_keys_are_those_of_kubernetes(group: str, plural: str, prefix: str) -> None:
    found = _SCHEME.by_resource(group, "v1", plural)
    assert found is not None
    assert found.storage_key_prefix == prefix


def test_every_kind_has_its_message() -> None:
    for kind in _SCHEME.kinds():
        assert kind.message.DESCRIPTOR.full_name == kind.full_name


def test_kinds_that_belong_to_every_group_are_found_in_each() -> None:
    for api_version in ("v1", "apps/v1", "meta.k8s.io/v1"):
        found = _SCHEME.kind(api_version, "DeleteOptions")
        assert found is not None
        assert found.message is meta_pb2.DeleteOptions


def test_unknown_names_are_none() -> None:
    assert _SCHEME.by_resource("", "v1", "petsets") is None
    assert _SCHEME.by_kind("v1", "PetSet") is None
    assert _SCHEME.kind("v2", "Pod") is None


def test_gvk_of_a_message() -> None:
    assert gvk(apps_pb2.Deployment()) == ("apps", "v1", "Deployment")
    assert gvk(meta_pb2.Status) == ("", "v1", "Status")
    with pytest.raises(ValueError, match="no top-level kind"):
        gvk(meta_pb2.ObjectMeta())
