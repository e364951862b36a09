"""Resources are things, not deeds: the same few verbs do all that is done to them, and what else there is is listed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tiphys_apimachinery.scheme import ResourceInfo, load_default

VERBS = {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
# What no object says by itself: part of an object, or a way into what runs. Source: Kubernetes' discovery document.
SUBRESOURCES = {
    "approval",
    "attach",
    "binding",
    "ephemeralcontainers",
    "eviction",
    "exec",
    "finalize",
    "log",
    "portforward",
    "proxy",
    "resize",
    "scale",
    "status",
    "token",
}
# Questions whose answer is not kept, and the oldest way to bind a pod.
NOT_KEPT = {
    "bindings",
    "localsubjectaccessreviews.authorization.k8s.io",
    "selfsubjectaccessreviews.authorization.k8s.io",
    "selfsubjectreviews.authentication.k8s.io",
    "selfsubjectrulesreviews.authorization.k8s.io",
    "subjectaccessreviews.authorization.k8s.io",
    "tokenreviews.authentication.k8s.io",
}
RESOURCES = load_default().resources()


def offences(resource: ResourceInfo) -> list[str]:
    """What of a resource is a deed and not a thing."""
    name = resource.group_resource
    found = [f"{name}: the verb {verb}" for verb in resource.verbs if verb not in VERBS]
    found += [f"{name}: the subresource {sub}" for sub in resource.subresources if sub not in SUBRESOURCES]
    if "get" not in resource.verbs and "list" not in resource.verbs and name not in NOT_KEPT:
        found.append(f"{name}: what is made can't be read")
    if "metadata" not in resource.message.DESCRIPTOR.fields_by_name:
        found.append(f"{name}: it has no metadata")
    if resource.plural not in _plurals(resource.kind.lower()):
        found.append(f"{name}: it is not named for its kind {resource.kind}")
    return found


def _plurals(kind: str) -> set[str]:
    # Of what is measured the resource bears the name of the measured.
    measured = kind.removesuffix("metrics") + "s"
    return {kind + "s", kind + "es", kind[:-1] + "ies", kind, measured}


@pytest.mark.parametrize("resource", RESOURCES, ids=[one.group_resource + "." + one.version for one in RESOURCES])
def test_M1_a_resource_is_a_thing_with_the_common_verbs(resource: ResourceInfo) -> None:
    assert offences(resource) == []


def test_M1_a_deed_in_the_clothes_of_a_resource_would_be_told_of() -> None:
    pods = next(one for one in RESOURCES if one.group_resource == "pods")
    assert offences(replace(pods, plural="restarts", verbs=("create", "run"))) == [
        "restarts: the verb run",
        "restarts: what is made can't be read",
        "restarts: it is not named for its kind Pod",
    ]
    restarted = replace(pods, subresources={"restart": pods.subresources["status"]})
    assert offences(restarted) == ["pods: the subresource restart"]
