"""`tiphys down` leaves the machine as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, eventually, run, unique_name

pytestmark = pytest.mark.containerd
# What nodes mount their own directories over; made for that, where the machine has none.
SHARED = ("/run/containerd", "/var/lib/cni", "/var/lib/kubelet", "/run/flannel")


def traces() -> dict[str, set[str]]:
    """What a cluster could leave behind, as sets of lines."""
    return {
        "interfaces": {line.split(":")[1].strip() for line in run("ip", "-o", "link").splitlines()},
        "namespaces": set(run("ip", "netns", "list").split("\n")),
        "mounts": set(Path("/proc/self/mountinfo").read_text().splitlines()),
        "rules": set(run("nft", "list", "ruleset").splitlines()),
        "routes": set(run("ip", "route", "show", "table", "all").splitlines()),
        "directories": {path for path in SHARED if Path(path).exists()},
        "loop devices": set(run("losetup", "--list", "--noheadings", "--output", "BACK-FILE").splitlines()),
        "cgroups": {str(p) for p in Path("/sys/fs/cgroup").glob("*/*") if p.is_dir()},
    }


def processes(name: str) -> list[str]:
    return [line for line in run("ps", "-eo", "args").splitlines() if name in line and "pytest" not in line]


def test_down_leaves_nothing(tmp_path: Path) -> None:
    before = traces()
    cluster = Cluster(unique_name("clean"), tmp_path / "home")
    try:
        assert "export KUBECONFIG=" in cluster.up("--nodes=2", "--fake=gpu:2")
        kubectl = cluster.kubectl()
        kubectl("create", "deployment", "web", "--image=tiphys.dev/httpd:1", "--replicas=4")
        kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        cluster.node("add", "extra")
        cluster.node("remove", "node-2")
        assert "up already" in cluster.up()
    finally:
        cluster.down()
    after = traces()
    assert {kind: after[kind] - before[kind] for kind in before} == {kind: set() for kind in before}
    assert eventually(lambda: not processes(cluster.name), timeout_s=10)
    assert not (tmp_path / "home").exists()
    cluster.down()
