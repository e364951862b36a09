"""A node in a container: what is started in it, and cgroups before that."""

from __future__ import annotations

from pathlib import Path

from tiphys_cluster.compose.node import Options, agents, leave_root_group, runtime

OPTIONS = Options(name="node-1", address="192.0.2.21", resolver="192.0.2.11")


def test_agents_act_as_the_node_and_stop_before_the_runtime() -> None:
    before, after = runtime(OPTIONS, "/sys/fs/cgroup/tiphys"), agents(OPTIONS, "/sys/fs/cgroup/tiphys")
    assert [spec.name for spec in (*before, *after)] == ["containerd", "tiphys-cni", "flannel", "kubelet", "kube-proxy"]
    assert max(spec.stage for spec in before) < min(spec.stage for spec in after)
    assert {spec.cgroup for spec in after} == {f"/sys/fs/cgroup/tiphys/{spec.name}" for spec in after}
    kubelet = next(spec for spec in after if spec.name == "kubelet")
    assert {"--hostname-override=node-1", "--node-ip=192.0.2.21", "--kubeconfig=/pki/kubelet.conf"} <= set(kubelet.argv)


def test_every_flag_is_one_that_the_process_has() -> None:
    import tiphys_cni.flannel.options
    import tiphys_cni.options
    import tiphys_kube_proxy.options
    import tiphys_kubelet.options
    from tiphys_component.options import parse

    modules = {
        "tiphys-cni": tiphys_cni.options.Options,
        "flannel": tiphys_cni.flannel.options.Options,
        "kubelet": tiphys_kubelet.options.Options,
        "kube-proxy": tiphys_kube_proxy.options.Options,
    }
    parsed: dict[str, object] = {
        spec.name: parse(modules[spec.name], list(spec.argv))
        for spec in (*runtime(OPTIONS, "/g"), *agents(OPTIONS, "/g"))
        if spec.module
    }
    assert parsed.keys() == modules.keys()


def test_cgroup_v2_processes_move_to_a_leaf_and_controllers_are_handed_down(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "cgroup.procs").write_text("1\n")
    leave_root_group(tmp_path)
    assert (tmp_path / "init" / "cgroup.procs").read_text() == "1"
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_cgroup_v1_is_left_alone(tmp_path: Path) -> None:
    leave_root_group(tmp_path)
    assert list(tmp_path.iterdir()) == []
