"""How the groups of pods weigh against each other: what nobody requested gives way to what somebody did."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_kubelet.runtime.cgroups import Cgroups
from tiphys_kubelet.runtime.limits import pod_limits


def pod(uid: str, request: str = "", limit: str = "") -> Pod:
    made = Pod()
    made.metadata.uid = uid
    resources = made.spec.containers.add(name="c").resources
    for name in ("cpu", "memory"):
        if request:
            resources.requests[name].string = request
        if limit:
            resources.limits[name].string = limit
    return made


@pytest.fixture(params=["version 1", "version 2"])
def groups(request: pytest.FixtureRequest, tmp_path: Path) -> Cgroups:
    if request.param == "version 2":
        (tmp_path / "cgroup.controllers").write_text("cpu memory")
    else:
        for controller in ("cpu", "memory"):
            (tmp_path / controller).mkdir()
    return Cgroups("/node", tmp_path)


def weight(groups: Cgroups, group: str) -> int:
    """What a group weighs, in shares or in version 2's own measure."""
    path = f"node/kubepods/{group}"
    if groups.is_version_2():
        return int((groups.mount / path / "cpu.weight").read_text())
    return int((groups.mount / "cpu" / path / "cpu.shares").read_text())


def start(groups: Cgroups, *pods: Pod) -> None:
    for item in pods:
        groups.set_pod_limits(item, pod_limits(item))


def test_C14_I8_all_pods_that_request_nothing_weigh_together_as_little_as_can_be(groups: Cgroups) -> None:
    start(groups, pod("sure", "2", "2"), *(pod(f"free{i}") for i in range(20)))
    least = 1 if groups.is_version_2() else 2
    assert weight(groups, "besteffort") == least
    assert weight(groups, "besteffort/podfree3") == least
    assert weight(groups, "podsure") > 70 * least


def test_I7_burstable_pods_weigh_together_what_they_request(groups: Cgroups) -> None:
    start(groups, pod("one", "1"), pod("two", "3"))
    alone = weight(groups, "burstable/podone") + weight(groups, "burstable/podtwo")
    assert weight(groups, "burstable") == pytest.approx(alone, abs=1)
    before = weight(groups, "burstable")
    # The kernel's own files go with their group; here they are ours.
    for file in groups.mount.rglob("podtwo/*"):
        file.unlink()
    groups.release(pod("two", "3"))
    assert weight(groups, "burstable") < before
    assert weight(groups, "burstable") == pytest.approx(weight(groups, "burstable/podone"), abs=1)


def test_the_last_pod_of_a_tier_that_is_gone_already_is_no_fault(groups: Cgroups) -> None:
    groups.release(pod("never", "1"))
    groups.release(pod("neither"))
