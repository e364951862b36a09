"""What a pod requests, counted as Kubernetes counts it."""

from __future__ import annotations

import pytest

from tests.unit.scheduler.objects import pod_message
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_scheduler.pod_info import pod_info


def requests(pod: Pod) -> dict[str, int]:
    return dict(pod_info(pod).needs.requests)


def test_containers_add_up() -> None:
    found = pod_message(cpu="250m", memory="64Mi")
    second = found.spec.containers.add(name="d")
    second.resources.requests["cpu"].string = "1"
    assert requests(found) == {"cpu": 1250, "memory": 64 << 20, "pods": 1}


def test_an_init_container_counts_while_it_is_the_largest() -> None:
    found = pod_message(cpu="250m")
    found.spec.initContainers.add(name="i").resources.requests["cpu"].string = "2"
    assert requests(found)["cpu"] == 2000


def test_what_a_pod_requests_as_a_whole_goes_before_its_containers() -> None:
    found = pod_message(cpu="3", memory="64Mi")
    found.spec.containers.add(name="d").resources.requests["example.com/gpu"].string = "1"
    found.spec.resources.requests["cpu"].string = "500m"
    found.spec.overhead["cpu"].string = "100m"
    assert requests(found) == {"cpu": 600, "memory": 64 << 20, "pods": 1, "example.com/gpu": 1}
    # The container without a request would count with its default else.
    assert pod_info(found).needs.scored[0] == 600


def test_a_sidecar_counts_beside_containers_and_later_init_containers() -> None:
    found = pod_message(cpu="100m")
    sidecar = found.spec.initContainers.add(name="s", restartPolicy="Always")
    sidecar.resources.requests["cpu"].string = "500m"
    found.spec.initContainers.add(name="i").resources.requests["cpu"].string = "400m"
    assert requests(found)["cpu"] == 900


def test_overhead_is_added() -> None:
    found = pod_message(cpu="100m")
    found.spec.overhead["cpu"].string = "50m"
    assert requests(found)["cpu"] == 150


def test_scoring_counts_a_default_for_containers_without_requests() -> None:
    assert pod_info(pod_message()).needs.scored == (100, 200 << 20)
    assert pod_info(pod_message(cpu="1")).needs.scored == (1000, 200 << 20)


def test_equal_pods_share_a_class_and_others_do_not() -> None:
    assert pod_info(pod_message("a", cpu="1")).needs == pod_info(pod_message("b", cpu="1")).needs
    assert pod_info(pod_message("a", cpu="1")).needs != pod_info(pod_message("a", cpu="2")).needs


@pytest.mark.parametrize(
    ("spec", "allocated", "actual", "reason", "counted"),
    [
        pytest.param("1", "1", "1", "", 1000, id="at rest"),
        pytest.param("2", "1", "1", "", 2000, id="a rise that is asked for"),
        pytest.param("2", "1", "1", "Deferred", 2000, id="a rise that waits"),
        pytest.param("2", "1", "1", "Infeasible", 1000, id="a rise that can never be"),
        pytest.param("1", "2", "2", "", 2000, id="a fall that is asked for"),
        pytest.param("1", "1", "2", "", 2000, id="a fall under way"),
        pytest.param("1", "1", "", "", 1000, id="nothing told of what it has"),
    ],
)
def test_B32_a_pod_being_resized_counts_as_the_most_it_may_have(
    spec: str, allocated: str, actual: str, reason: str, counted: int
) -> None:
    found = pod_message(cpu=spec)
    status = found.status.containerStatuses.add(name=found.spec.containers[0].name)
    status.allocatedResources["cpu"].string = allocated
    status.resources.SetInParent()
    if actual:
        status.resources.requests["cpu"].string = actual
    if reason:
        found.status.conditions.add(type="PodResizePending", status="True", reason=reason)
    assert requests(found)["cpu"] == counted
    assert pod_info(found).needs.scored[0] == counted
