"""The schema's rules find every single-field fault, with path and Kubernetes' words."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys.api.policy.v1 import policy_pb2
from tiphys_apimachinery import validation
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.defaults import apply_defaults
from tiphys_apimachinery.scheme import load_default


def _pod(**container: Any) -> pod_pb2.Pod:
    container = {"name": "a", "image": "busybox", **container}
    pod = json_codec.from_json(pod_pb2.Pod, {"metadata": {"name": "p"}, "spec": {"containers": [container]}})
    apply_defaults(pod)
    return pod


def test_a_good_pod_has_no_findings() -> None:
    assert validation.validate_fields(_pod()) == []


@pytest.mark.parametrize(
    ("container", "finding"),
    [
        ({"name": ""}, "spec.containers[0].name: Required value"),
        ({"image": ""}, "spec.containers[0].image: Required value"),
        (
            {"imagePullPolicy": "Sometimes"},
            'spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", '
            '"IfNotPresent", "Never"',
        ),
        ({"ports": [{}]}, "spec.containers[0].ports[0].containerPort: Required value"),
        (
            {"ports": [{"containerPort": 1}, {"containerPort": 65536}]},
            "spec.containers[0].ports[1].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive",
        ),
        (
            {"env": [{"name": "A=B"}]},
            'spec.containers[0].env[0].name: Invalid value: "A=B": a valid environment variable name must consist only '
            "of printable ASCII characters other than '='",
        ),
    ],
)
def test_finding_names_field_and_value(container: dict[str, Any], finding: str) -> None:
    assert [str(error) for error in validation.validate_fields(_pod(**container))] == [finding]


def test_no_containers_is_a_missing_value() -> None:
    pod = pod_pb2.Pod()
    pod.spec.restartPolicy = "Always"
    assert "spec.containers: Required value" in [str(error) for error in validation.validate_fields(pod)]


def test_status_is_checked_only_when_asked_for() -> None:
    pod = _pod()
    pod.status.phase = "Dreaming"
    assert validation.validate_fields(pod) == []
    assert [error.path for error in validation.validate_status(pod)] == ["status.phase"]


def test_share_is_a_count_or_a_percentage() -> None:
    budget = json_codec.from_json(
        policy_pb2.PodDisruptionBudget, {"spec": {"minAvailable": "lots", "maxUnavailable": -1}}
    )
    assert [str(error) for error in validation.validate_fields(budget)] == [
        "spec.minAvailable: Invalid value: \"lots\": must be an integer or percentage (e.g '5%')",
        "spec.maxUnavailable: Invalid value: -1: must be greater than or equal to 0",
    ]


def test_immutable_field_that_changed_is_named_with_its_new_value() -> None:
    old = json_codec.from_json(apps_pb2.Deployment, {"spec": {"selector": {"matchLabels": {"a": "b"}}}})
    new = json_codec.from_json(apps_pb2.Deployment, {"spec": {"selector": {"matchLabels": {"a": "c"}}}})
    assert validation.validate_immutable(old, old) == []
    assert [str(error) for error in validation.validate_immutable(new, old)] == [
        'spec.selector: Invalid value: {"matchLabels":{"a":"c"}}: field is immutable'
    ]


def test_rules_of_every_kind_compile() -> None:
    for kind in load_default().kinds():
        message = kind.message()
        validation.validate_fields(message)
        validation.validate_status(message)
        assert validation.validate_immutable(message, message) == []
