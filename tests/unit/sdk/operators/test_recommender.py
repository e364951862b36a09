"""What the recommender gives a container that is seen to use so much."""

from __future__ import annotations

from typing import Any

import pytest

from examples.operators.recommender import Bounds, ScalingSpec, recommend, wanted_resources
from tiphys.api.core.v1.container_pb2 import Container

CPU = Bounds(10, 1000)


@pytest.mark.parametrize(
    ("used", "request_", "limit", "given"),
    [
        pytest.param(100, 125, 250, 125, id="it fits"),
        pytest.param(110, 125, 250, 125, id="a change is not worth it"),
        pytest.param(200, 100, 400, 250, id="it uses more"),
        pytest.param(40, 200, 400, 50, id="it uses less"),
        pytest.param(80, 40, 80, 100, id="held back, and seen to use much more"),
        pytest.param(76, 100, 80, 200, id="held back: twice as much"),
        pytest.param(5000, 500, 0, 1000, id="no more than the most"),
        pytest.param(0, 200, 0, 10, id="no less than the least"),
        pytest.param(990, 1000, 1000, 1000, id="at the most already"),
    ],
)
def test_B32_the_recommendation_follows_the_use(used: int, request_: int, limit: int, given: int) -> None:
    assert recommend(used, request_, limit, CPU) == given


def container(**amounts: str) -> Container:
    made = Container(name="main")
    for name, text in amounts.items():
        member, _, resource = name.partition("_")
        getattr(made.resources, member)[resource].string = text
    return made


@pytest.mark.parametrize(
    ("made", "used", "changes"),
    [
        pytest.param(
            container(requests_cpu="40m", limits_cpu="80m", requests_memory="64Mi"),
            {"cpu": "80m", "memory": "50Mi"},
            {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}},
            id="the limit keeps its ratio",
        ),
        pytest.param(
            container(requests_memory="64Mi", limits_memory="64Mi"),
            {"memory": "20Mi"},
            {"requests": {"memory": "25Mi"}, "limits": {"memory": "25Mi"}},
            id="Guaranteed stays Guaranteed",
        ),
        pytest.param(container(limits_cpu="80m"), {"cpu": "80m"}, {}, id="nothing is asked for"),
        pytest.param(container(requests_cpu="80m"), {}, {}, id="nothing is known of it"),
    ],
)
def test_B32_requests_and_limits_change_together(made: Container, used: dict[str, str], changes: Any) -> None:
    assert wanted_resources(made, used, ScalingSpec({})) == changes
