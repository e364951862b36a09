"""Autoscalers as the API server takes them: defaults and refusals."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.apiserver import RunningServer

PATH = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
QUEUE = {"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "5"}}}


def body(**spec: Any) -> dict[str, Any]:
    target = {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}
    return {"metadata": {"generateName": "h"}, "spec": {"scaleTargetRef": target, "maxReplicas": 3, **spec}}


HALF = {"type": "Utilization", "averageUtilization": 50}
VALUE = {"type": "Value", "value": "1"}


def cpu(**target: Any) -> dict[str, Any]:
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


async def test_B31_behavior_is_filled_in_both_directions(server: RunningServer) -> None:
    made = (await server.http("POST", PATH, body())).json()["spec"]
    assert "behavior" not in made
    assert made["metrics"] == [cpu(type="Utilization", averageUtilization=80)]
    asked = {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}], "tolerance": "200m"}}
    made = (await server.http("POST", PATH, body(behavior=asked))).json()["spec"]["behavior"]
    assert made["scaleDown"] == {**asked["scaleDown"], "selectPolicy": "Max"}
    assert made["scaleUp"] == {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        ],
    }


async def test_B31_none_at_all_is_allowed_where_something_outside_is_measured(server: RunningServer) -> None:
    assert (await server.http("POST", PATH, body(minReplicas=0, metrics=[QUEUE]))).status == 201
    refused = await server.http("POST", PATH, body(minReplicas=0))
    assert refused.status == 422
    assert "must specify at least one Object or External metric" in refused.json()["message"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"minReplicas": 5}, "spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`"),
        ({"maxReplicas": 0}, "spec.maxReplicas"),
        ({"metrics": [{"type": "Resource"}]}, "spec.metrics[0].resource: Required value"),
        ({"metrics": [{**QUEUE, **cpu(**HALF)}]}, "spec.metrics[0].external: Forbidden"),
        ({"metrics": [cpu(type="Utilization")]}, "must set either a target raw value or a target utilization"),
        (
            {"metrics": [cpu(type="Utilization", averageUtilization=5, averageValue="1")]},
            "may not set both a target raw value and a target utilization",
        ),
        ({"metrics": [cpu(type="AverageValue", averageValue="-1")]}, "must be positive"),
        ({"metrics": [cpu(type="Utilization", averageUtilization=0)]}, "averageUtilization"),
        ({"metrics": [cpu(type="Much", averageUtilization=5)]}, "target.type"),
        (
            {"metrics": [{"type": "Pods", "pods": {"metric": {"name": "x"}, "target": VALUE}}]},
            "must specify a positive target averageValue",
        ),
        ({"behavior": {"scaleUp": {"tolerance": "-1"}}}, "must be greater than or equal to 0"),
        ({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601}}}, "stabilizationWindowSeconds"),
        ({"behavior": {"scaleUp": {"selectPolicy": "Some"}}}, "selectPolicy"),
    ],
)  # fmt: skip
async def test_what_can_not_be_meant_is_refused_by_its_field(
    server: RunningServer, spec: dict[str, Any], words: str
) -> None:
    refused = await server.http("POST", PATH, body(**spec))
    assert refused.status == 422, refused.body
    assert words in refused.json()["message"]
