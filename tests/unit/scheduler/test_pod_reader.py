"""What pods of equal specs need is worked out once, and is what reading each by itself gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.scheduler.objects import pod_message
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_scheduler.pod_info import PodReader, pod_info


def _bound(pod: Pod) -> None:
    pod.spec.nodeName = "n1"


def _told(pod: Pod) -> None:
    pod.status.conditions.add(type="PodScheduled", status="True")


def _labelled(pod: Pod) -> None:
    pod.metadata.labels["app"] = "other"


def _elsewhere(pod: Pod) -> None:
    pod.metadata.namespace = "other"


def _larger(pod: Pod) -> None:
    pod.spec.containers[0].resources.requests["cpu"].string = "2"


def _owned(pod: Pod) -> None:
    pod.metadata.ownerReferences.add(kind="ReplicaSet", name="r", controller=True)


def _going(pod: Pod) -> None:
    pod.metadata.deletionTimestamp.seconds = 1


def _resized(pod: Pod) -> None:
    status = pod.status.containerStatuses.add(name="c")
    status.resources.requests["cpu"].string = "3"


def _ephemeral(pod: Pod) -> None:
    pod.spec.volumes.add(name="v").volumeSource.ephemeral.SetInParent()


@pytest.mark.parametrize(
    ("change", "is_shared"),
    [
        pytest.param(_bound, True, id="bound"),
        pytest.param(_told, True, id="told of"),
        pytest.param(_labelled, False, id="other labels"),
        pytest.param(_elsewhere, False, id="another namespace"),
        pytest.param(_larger, False, id="other requests"),
        pytest.param(_owned, False, id="another owner"),
        pytest.param(_going, False, id="going"),
        pytest.param(_resized, False, id="resized"),
        pytest.param(_ephemeral, False, id="claims made for it"),
    ],
)
def test_needs_are_shared_by_pods_that_differ_in_nothing_they_are_made_of(
    change: Callable[[Pod], None], is_shared: bool
) -> None:
    reader, first, second = PodReader(), pod_message("a", cpu="1"), pod_message("b", cpu="1")
    change(second)
    before = reader.read(first)
    after = reader.read(second)
    assert after == pod_info(second)
    assert (after.needs is before.needs) is is_shared


def test_pods_of_their_own_claims_share_nothing() -> None:
    reader = PodReader()
    pods = [pod_message(name) for name in "ab"]
    for pod in pods:
        _ephemeral(pod)
    assert [reader.read(pod).needs.claims for pod in pods] == [("default/a-v",), ("default/b-v",)]


def test_only_so_many_specs_are_kept_in_mind() -> None:
    reader = PodReader()
    for number in range(4200):
        reader.read(pod_message("a", cpu=f"{number + 1}m"))
    assert len(reader) == 4096
