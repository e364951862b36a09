from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from tiphys_cluster.errors import PreflightError
from tiphys_cluster.preflight import Machine, check, find_port_owner
from tiphys_cluster.settings import Settings


def machine(**changes: Any) -> Machine:
    fine: dict[str, Any] = {
        "effective_uid": lambda: 0,
        "which": lambda name: f"/usr/bin/{name}",
        "port_owner": lambda host, port: None,
        "free_bytes": lambda path: 1 << 40,
    }
    return Machine(**{**fine, **changes})


def problems(settings: Settings | None = None, **changes: Any) -> str:
    with pytest.raises(PreflightError) as caught:
        check(settings or Settings("a"), Path("/home"), machine(**changes), needs_compiler=True)
    return str(caught.value)


def test_a_machine_that_has_everything_passes() -> None:
    check(Settings("a", store="etcd"), Path("/home"), machine(), needs_compiler=True)


def test_a_user_who_is_not_root_is_told_of_sudo() -> None:
    assert "sudo" in problems(effective_uid=lambda: 1000)


@pytest.mark.parametrize(
    ("program", "package"),
    [("containerd", "containerd"), ("runc", "runc"), ("nft", "nftables"), ("ip", "iproute2"), ("gcc", "gcc")],
)
def test_a_missing_program_is_named_with_its_debian_package(program: str, package: str) -> None:
    text = problems(which=lambda name: None if name == program else "/x")

    assert f"{program} is not installed" in text
    assert f"apt-get install {package}" in text


def test_etcd_is_needed_only_as_the_store() -> None:
    def without_etcd(name: str) -> str | None:
        return None if name == "etcd" else "/x"

    check(Settings("a"), Path("/home"), machine(which=without_etcd), needs_compiler=False)
    assert "apt-get install etcd-server" in problems(Settings("a", store="etcd"), which=without_etcd)


def test_no_compiler_is_needed_once_images_are_built() -> None:
    def without_compiler(name: str) -> str | None:
        return None if name == "gcc" else "/x"

    check(Settings("a"), Path("/home"), machine(which=without_compiler), needs_compiler=False)


def test_a_port_in_use_is_named_with_its_owner_and_the_flag_that_moves_it() -> None:
    text = problems(port_owner=lambda host, port: "nginx (process 7)" if port == 6443 else None)

    assert "port 6443" in text
    assert "nginx (process 7)" in text
    assert "--port-offset" in text


def test_the_clusters_own_ports_are_not_in_its_way() -> None:
    busy = machine(port_owner=lambda host, port: "python (process 7)" if port == 6443 else None)

    check(Settings("a"), Path("/home"), busy, needs_compiler=False, own_ports={6443})


def test_a_full_disk_is_told_with_the_directory() -> None:
    text = problems(free_bytes=lambda path: 3 << 20)

    assert "3 MB" in text
    assert "/home" in text


def test_all_problems_are_told_at_once() -> None:
    text = problems(effective_uid=lambda: 1000, which=lambda name: None, free_bytes=lambda path: 0)

    assert "sudo" in text
    assert "containerd is not installed" in text
    assert "runc is not installed" in text
    assert "0 MB" in text


def test_the_owner_of_a_real_port_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        owner = find_port_owner("127.0.0.1", port)
    free = find_port_owner("127.0.0.1", port)

    assert owner is not None
    assert "process" in owner
    assert free is None
