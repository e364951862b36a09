from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tiphys_cluster import components
from tiphys_cluster.child import ChildSpec
from tiphys_cluster.components import Place
from tiphys_cluster.layout import Layout
from tiphys_cluster.settings import Member, Settings, numbered


def place(**changes: Any) -> Place:
    settings = Settings("a", **{"members": numbered("one", "two"), **changes})
    return Place(Layout("a", Path("/h"), Path("/r")), settings, "/cg")


def table(where: Place) -> list[ChildSpec]:
    nodes = where.settings.nodes
    agents = [spec for node in nodes for spec in components.of_node(where, node)]
    return [
        components.keeper(where),
        components.registry_proxy(where),
        *components.store(where),
        components.apiserver(where),
        *components.control_plane(where),
        *agents,
    ]


def test_every_process_has_a_name_a_log_and_a_cgroup_of_its_own() -> None:
    specs = table(place(store="etcd", etcd_port=23790))

    for attribute in ("name", "log", "cgroup"):
        values = [getattr(spec, attribute) for spec in specs]
        assert len(set(values)) == len(values), attribute
    assert {spec.cgroup.rpartition("/")[0] for spec in specs} == {"/cg/tiphys-a/system"}


def test_no_two_processes_of_one_address_listen_on_one_port() -> None:
    taken = [(spec.address, port) for spec in table(place()) for port in spec.ports]

    assert len(set(taken)) == len(taken)


def test_an_offset_moves_every_port() -> None:
    plain = [port for spec in table(place()) for port in spec.ports]
    moved = [port for spec in table(place(port_offset=1000)) for port in spec.ports]

    assert moved == [port + 1000 for port in plain]


def test_what_belongs_to_a_node_runs_in_its_namespaces_and_nothing_else_does() -> None:
    for spec in table(place()):
        assert spec.netns == (f"/r/a/ns/{spec.node}.net" if spec.node else "")
        assert spec.mntns == (f"/r/a/ns/{spec.node}.mnt" if spec.node else "")


def test_agents_stop_before_the_apiserver_and_that_before_its_store() -> None:
    stages = {spec.name: spec.stage for spec in table(place(store="etcd", etcd_port=23790))}

    assert stages["keeper"] > stages["kubelet-one"] > stages["kube-apiserver"] > stages["etcd"]
    assert stages["kubelet-one"] > stages["containerd-one"]


@pytest.mark.parametrize("store", ["sqlite", "etcd"])
def test_the_apiserver_is_told_its_store(store: str) -> None:
    argv = components.apiserver(place(store=store, etcd_port=23790)).argv

    assert any(store in flag for flag in argv)
    assert any("http://127.0.0.1:23790" in flag for flag in argv) == (store == "etcd")


def test_specs_survive_the_way_to_the_zygote() -> None:
    for spec in table(place()):
        assert ChildSpec.from_dict(spec.to_dict()) == spec


def test_containerd_pulls_through_the_proxy_and_reaches_the_cluster_without() -> None:
    spec = components.runtime(place(port_offset=100), "one")

    assert spec.env["HTTPS_PROXY"] == spec.env["https_proxy"] == "http://198.18.0.1:10371"
    assert "198.18.0.0/24" in spec.env["NO_PROXY"]


def test_the_machines_own_proxy_is_asked_in_turn() -> None:
    plain, behind = place(), Place(place().layout, place().settings, "/cg", "http://proxy:3128")

    assert "--upstream=http://proxy:3128" in components.registry_proxy(behind).argv
    assert not any("upstream" in flag for flag in components.registry_proxy(plain).argv)


def test_devices_are_simulated_on_the_nodes_that_are_to_have_them() -> None:
    where = place(members=(*numbered("one"), Member("two", 1, devices="gpu:8")))

    found = {spec.name: spec.argv for spec in table(where) if spec.name.startswith("device-plugin")}

    assert list(found) == ["device-plugin-two"]
    assert "--simulate=gpu:8" in found["device-plugin-two"]


def test_plugins_meet_the_kubelet_where_the_world_expects_it_in_paths_that_fit_a_socket() -> None:
    argv = [flag for spec in components.extensions(place(), "one") for flag in spec.argv]

    assert "--endpoint=unix:///var/lib/kubelet/plugins/hostpath.csi.tiphys.dev/csi.sock" in argv
    assert argv.count("--plugins-registry=/var/lib/kubelet/plugins_registry") == 1


def test_F18_the_cni_service_is_told_of_the_users_own_network_and_plugins() -> None:
    def argv(**changes: object) -> tuple[str, ...]:
        return next(one.argv for one in components.agents(place(**changes), "one") if one.name == "tiphys-cni-one")

    own = argv(cni_conf="{}", cni_bin_dir="/usr/lib/cni")
    assert {"--network=file", "--conf-file=/h/nodes/one/cni/network.conflist", "--plugin-dir=/usr/lib/cni"} <= set(own)
    assert "--network=flannel" in argv()
    assert not any("plugin-dir" in one or "conf-file" in one for one in argv())


def test_A36_the_apiserver_reaches_pods_by_proxies_on_the_first_two_nodes_that_serve_it_alone() -> None:
    where = place(members=numbered("one", "two", "three"))

    proxies = {spec.node: spec for spec in table(where) if spec.name.startswith("egress-proxy")}

    assert list(proxies) == ["one", "two"]
    assert all("--allow-from=198.18.0.1/32" in spec.argv for spec in proxies.values())
    urls = ",".join(f"http://{spec.address}:{spec.ports[0]}" for spec in proxies.values())
    assert f"--egress-proxy={urls}" in components.apiserver(where).argv


@pytest.mark.parametrize("backend", ["vxlan", "host-gw", "udp"])
def test_flannel_is_told_its_back_end(backend: str) -> None:
    assert f"--backend={backend}" in components.flannel(place(flannel_backend=backend), "one").argv
