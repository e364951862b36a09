"""What pods of equal specs need is worked out once, and is what reading each by itself gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.scheduler.objects import pod_message
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_scheduler.pod_info import PodInfo, pod_info
from tiphys_scheduler.pod_reader import PodReader


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


def _of_generation(generation: int) -> Pod:
    found = pod_message("a", cpu="1")
    found.metadata.generation = generation
    found.metadata.labels["app"] = "web"
    return found


def _changed_with_its_generation(pod: Pod) -> None:
    _larger(pod)
    pod.metadata.generation += 1


def _nominated(pod: Pod) -> None:
    pod.status.nominatedNodeName = "n2"
    pod.status.conditions.add(type="PodScheduled", status="False", message="no room")


def _preempted(pod: Pod) -> None:
    pod.status.conditions.add(type="DisruptionTarget", status="True", reason="PreemptionByScheduler")


def _unlabelled(pod: Pod) -> None:
    del pod.metadata.labels["app"]


def _ended(pod: Pod) -> None:
    pod.status.phase = "Failed"
    pod.status.startTime.seconds = 5


@pytest.mark.parametrize(
    ("change", "is_read"),
    [
        pytest.param(_bound, False, id="bound"),
        pytest.param(_told, False, id="told of"),
        pytest.param(_nominated, False, id="nominated"),
        pytest.param(_preempted, False, id="preempted"),
        pytest.param(_ended, False, id="ended"),
        pytest.param(_changed_with_its_generation, True, id="other requests"),
        pytest.param(_labelled, True, id="another label"),
        pytest.param(_unlabelled, True, id="one label less"),
        pytest.param(_owned, True, id="another owner"),
        pytest.param(_going, True, id="going"),
        pytest.param(_resized, True, id="resized"),
    ],
)
def test_the_spec_of_a_newer_version_is_read_only_where_it_may_be_another(
    change: Callable[[Pod], None], is_read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, pod = PodReader(), _of_generation(1)
    known = reader.read(pod)
    change(pod)
    read: list[Pod] = []

    def noted(pod: Pod) -> PodInfo:
        read.append(pod)
        return PodReader().read(pod)

    monkeypatch.setattr(reader, "read", noted)
    assert reader.renew(pod, known) == PodReader().read(pod)
    assert bool(read) is is_read


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(0, 0, id="counts no generations"),
        pytest.param(0, 1, id="did not count them before"),
    ],
)
def test_without_a_generation_the_spec_is_read_again(first: int, then: int) -> None:
    reader = PodReader()
    known = reader.read(_of_generation(first))
    newer = _of_generation(then)
    _larger(newer)
    assert dict(reader.renew(newer, known).needs.requests)["cpu"] == 2000


def test_needs_of_more_than_the_spec_are_read_again() -> None:
    reader, pod = PodReader(), _of_generation(1)
    _resized(pod)
    known = reader.read(pod)
    del pod.status.containerStatuses[:]
    assert (dict(known.needs.requests)["cpu"], dict(reader.renew(pod, known).needs.requests)["cpu"]) == (3000, 1000)
