"""Certificates of the containers: who has what, and what is kept."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from tiphys_client import kubeconfig
from tiphys_cluster.compose.certificates import Issuer, Options
from tiphys_component.certificates import identity
from tiphys_component.clock import FakeClock

NODES = ("node-1=192.0.2.21", "node-2=192.0.2.22")


def options(folder: Path, nodes: tuple[str, ...] = NODES) -> Options:
    return Options(folder=folder, apiserver_ip="192.0.2.10", port=7443, grpc_port=7444, nodes=nodes)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def issued(tmp_path: Path) -> Path:
    Issuer(options(tmp_path), FakeClock()).ensure()
    return tmp_path


@pytest.mark.parametrize(
    ("path", "user", "groups", "server"),
    [
        ("admin/admin", "kubernetes-admin", ("system:masters",), "https://127.0.0.1:7443"),
        ("scheduler/server", "system:kube-scheduler", (), "https://apiserver:6443"),
        ("controller-manager/server", "system:kube-controller-manager", (), "https://apiserver:6443"),
        ("cluster-dns/server", "system:cluster-dns", (), "https://apiserver:6443"),
        ("node-2/kubelet", "system:node:node-2", ("system:nodes",), "https://apiserver:6443"),
        ("node-2/kube-proxy", "system:kube-proxy", ("system:node-proxier",), "https://apiserver:6443"),
        ("node-2/flannel", "system:flannel", (), "https://apiserver:6443"),
    ],
)
def test_kubeconfig_says_who_calls_whom(
    issued: Path, path: str, user: str, groups: tuple[str, ...], server: str
) -> None:
    config = kubeconfig.load(issued / f"{path}.conf")
    found = identity(config.cert_pem)
    assert (found.common_name, found.organizations, config.server_url) == (user, groups, server)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("apiserver/server.crt", "192.0.2.10"),
        ("apiserver/server.crt", "10.96.0.1"),
        ("apiserver/server.crt", "apiserver"),
        ("etcd/server.crt", "etcd"),
        ("node-1/kubelet.crt", "192.0.2.21"),
        ("node-2/kubelet.crt", "node-2"),
    ],
)
def test_server_is_known_by(issued: Path, path: str, name: str) -> None:
    certificate = x509.load_pem_x509_certificate((issued / path).read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert name in {str(item.value) for item in names}


def test_A1_only_the_api_server_has_a_certificate_that_etcd_trusts(issued: Path) -> None:
    authority = x509.load_pem_x509_certificate((issued / "etcd" / "etcd-ca.crt").read_bytes())
    signed = set()
    for path in issued.glob("*/*.crt"):
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        if certificate.issuer == authority.subject and certificate.subject != authority.subject:
            signed.add(path.relative_to(issued).as_posix())
    assert signed == {"etcd/server.crt", "apiserver/etcd-client.crt"}


def test_no_container_has_the_key_of_an_authority(issued: Path) -> None:
    holders = {path.parent.name for path in issued.rglob("*ca.key")}
    assert holders == {"authority"}
    assert {path.parent.name for path in issued.rglob("sa.key")} == {"apiserver"}


def test_second_run_changes_nothing(issued: Path) -> None:
    before = files(issued)
    assert Issuer(options(issued), FakeClock()).ensure() == []
    assert files(issued) == before


def test_what_is_missing_or_about_to_end_is_made_anew(issued: Path) -> None:
    (issued / "scheduler" / "server.key").unlink()
    assert Issuer(options(issued), FakeClock()).ensure() == ["scheduler/server"]
    later = FakeClock(FakeClock().now() + timedelta(days=300))
    assert "scheduler/server" in Issuer(options(issued), later).ensure()


def test_node_that_moves_gets_a_new_certificate(issued: Path) -> None:
    made = Issuer(options(issued, ("node-1=192.0.2.21", "node-2=192.0.2.99")), FakeClock()).ensure()
    assert made == ["node-2/kubelet", "node-2/kube-proxy", "node-2/flannel"]
