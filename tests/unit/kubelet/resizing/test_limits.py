"""What resources come to in the kernel, what the kernel has comes to in the API, and its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.kubelet.resizing.builders import MI, pod_of, pod_with
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_kubelet.runtime.cgroups import Cgroups
from tiphys_kubelet.runtime.group_files import GroupFiles, shares_of, weight_of
from tiphys_kubelet.runtime.limits import Limits, actual_resources, container_limits, from_cri, pod_limits


@pytest.mark.parametrize(
    ("containers", "limits"),
    [
        pytest.param({"a": "500m 1Mi / 1 64Mi", "b": "500m - / 1 64Mi"}, Limits(1024, 200_000, 128 * MI), id="all"),
        pytest.param({"a": "500m 1Mi / 1 64Mi", "b": "500m -"}, Limits(1024, 0, 0), id="one without limits"),
        pytest.param({"a": "- -"}, Limits(2, 0, 0), id="best effort"),
        pytest.param({"a": "- - / - 64Mi"}, Limits(2, 0, 64 * MI), id="memory alone"),
    ],
)
def test_B32_a_pod_is_limited_where_all_its_containers_are(containers: dict[str, str], limits: Limits) -> None:
    assert pod_limits(pod_with(containers)) == limits


def test_B32_what_a_container_has_is_told_in_the_words_of_its_allocation_or_else_in_figures() -> None:
    container = pod_of(a="0.5 64Mi / 1 128Mi").spec.containers[0]
    assert actual_resources(container, container_limits(container)) == container.resources
    told = actual_resources(container, Limits(256, 50_000, 64 * MI))
    assert told.requests["cpu"].string == "250m"
    assert (told.limits["cpu"].string, told.limits["memory"].string) == ("500m", "64Mi")
    assert told.requests["memory"].string == "64Mi"
    assert "cpu" not in actual_resources(container, Limits(2, 0, 0)).limits


def test_B32_a_runtime_that_says_nothing_is_not_taken_for_one_that_limits_nothing() -> None:
    assert from_cri(cri.ContainerStatus()) is None
    linux = cri.LinuxContainerResources(cpu_shares=512, cpu_quota=20_000, cpu_period=50_000, memory_limit_in_bytes=5000)
    assert from_cri(cri.ContainerStatus(resources=cri.ContainerResources(linux=linux))) == Limits(512, 40_000, 4096)


def version_1(root: Path) -> Path:
    for controller in ("cpu", "memory"):
        (root / controller).mkdir()
    return root


def version_2(root: Path) -> Path:
    (root / "cgroup.controllers").write_text("cpu memory")
    return root


@pytest.mark.parametrize("mount", [version_1, version_2], ids=["cgroup v1", "cgroup v2"])
@pytest.mark.parametrize("limits", [Limits(1024, 150_000, 64 * MI), Limits(2, 0, 0)], ids=["limited", "unlimited"])
def test_B32_a_group_has_the_limits_that_it_was_given(
    tmp_path: Path, mount: Callable[[Path], Path], limits: Limits
) -> None:
    root = mount(tmp_path)
    files = GroupFiles(root, "kubepods/burstable/poduid-1")
    assert files.read() is None
    files.write(limits)
    for name in (root / "memory").rglob("memory.limit_in_bytes"):
        # The kernel shows no limit as the largest number it has.
        name.write_text(name.read_text().replace("-1", str((1 << 63) - 4096)))
    assert files.read(limits.cpu_shares) == limits


def test_B32_a_container_is_found_in_whichever_class_its_pod_is(tmp_path: Path) -> None:
    groups = Cgroups("/node", version_1(tmp_path))
    GroupFiles(tmp_path, "node/kubepods/besteffort/poduid-1/c1").write(Limits(2, 10_000, MI))
    assert groups.container_limits("uid-1", "c1") == Limits(2, 10_000, MI)
    assert groups.container_limits("uid-1", "c2") is None


def test_B32_cache_that_can_go_is_not_in_use(tmp_path: Path) -> None:
    pod = pod_of(a="1 1Mi")
    groups = Cgroups("/", version_1(tmp_path))
    folder = tmp_path / "memory" / groups.parent(pod).lstrip("/")
    folder.mkdir(parents=True)
    assert groups.memory_use(pod) is None
    (folder / "memory.usage_in_bytes").write_text("1000\n")
    (folder / "memory.stat").write_text("cache 700\ntotal_inactive_file 600\n")
    assert groups.memory_use(pod) == 400


@pytest.mark.parametrize("shares", [2, 3, 102, 1024, 262144])
def test_B32_weights_come_back_as_shares_of_the_same_weight(shares: int) -> None:
    assert weight_of(shares_of(weight_of(shares))) == weight_of(shares)
