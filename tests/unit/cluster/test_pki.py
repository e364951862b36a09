from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from tiphys_cluster.layout import Layout
from tiphys_cluster.pki import RENEW_BEFORE, Pki, is_due, wanted
from tiphys_cluster.settings import Settings
from tiphys_component import certificates
from tiphys_component.clock import FakeClock

SETTINGS = Settings("a", network=4)


@pytest.fixture(autouse=True)
def quick_service_account_key(monkeypatch: pytest.MonkeyPatch) -> None:
    # An RSA key takes up to 0.3 s; that it is RSA is the certificates' own test.
    monkeypatch.setattr(certificates, "create_service_account_key", lambda: (b"private", b"public"))


def make(tmp_path: Path, clock: FakeClock | None = None, settings: Settings = SETTINGS) -> tuple[Layout, list[str]]:
    layout = Layout("a", tmp_path / "home", tmp_path / "run")
    return layout, Pki(layout, settings, clock or FakeClock()).ensure()


def names(path: Path) -> list[str]:
    extension = x509.load_pem_x509_certificate(path.read_bytes()).extensions
    return [str(name.value) for name in extension.get_extension_for_class(x509.SubjectAlternativeName).value]


def test_the_apiserver_is_reachable_by_every_name_users_and_pods_have_for_it(tmp_path: Path) -> None:
    layout, _ = make(tmp_path)

    found = names(layout.pki / "apiserver.crt")

    assert {"localhost", "127.0.0.1", "198.18.4.1", "10.96.0.1", "kubernetes", "kubernetes.default.svc"} <= set(found)
    assert "kubernetes.default.svc.cluster.local" in found


@pytest.mark.parametrize(
    ("file", "user", "groups"),
    [
        ("pki/admin.crt", "kubernetes-admin", ("system:masters",)),
        ("pki/scheduler.crt", "system:kube-scheduler", ()),
        ("pki/controller-manager.crt", "system:kube-controller-manager", ()),
        ("pki/cluster-dns.crt", "system:cluster-dns", ()),
        ("nodes/node-1/pki/kubelet-client.crt", "system:node:node-1", ("system:nodes",)),
        ("nodes/node-1/pki/kube-proxy.crt", "system:kube-proxy", ("system:node-proxier",)),
    ],
)
def test_each_component_has_an_identity_of_its_own(
    tmp_path: Path, file: str, user: str, groups: tuple[str, ...]
) -> None:
    layout, _ = make(tmp_path)

    found = certificates.identity((layout.home / file).read_bytes())

    assert (found.common_name, found.organizations) == (user, groups)


def test_every_private_file_is_the_owners_alone(tmp_path: Path) -> None:
    layout, _ = make(tmp_path)
    private = [*layout.home.rglob("*.key"), *layout.home.rglob("*.conf")]

    assert len(private) > 10
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}


def test_kubeconfigs_point_people_to_loopback_and_nodes_to_the_leg(tmp_path: Path) -> None:
    layout, _ = make(tmp_path, settings=Settings("a", network=4, port_offset=100))

    def cluster(path: Path) -> dict[str, Any]:
        value: dict[str, Any] = yaml.safe_load(path.read_text())["clusters"][0]["cluster"]
        return value

    assert cluster(layout.admin_conf)["server"] == "https://127.0.0.1:6543"
    node = cluster(layout.node("node-1").kubelet_conf)
    assert node["server"] == "https://198.18.4.1:6543"
    assert node["extensions"] == [{"name": "tiphys.grpc", "extension": {"address": "198.18.4.1:6544"}}]


def test_a_second_run_makes_nothing(tmp_path: Path) -> None:
    make(tmp_path)

    assert make(tmp_path)[1] == []


def test_only_what_was_deleted_is_made_again(tmp_path: Path) -> None:
    layout, _ = make(tmp_path)
    layout.conf("scheduler").unlink()

    assert make(tmp_path)[1] == [str(layout.pki / "scheduler")]


def test_leaves_are_renewed_in_time_and_the_authority_stays(tmp_path: Path) -> None:
    clock = FakeClock()
    layout, _ = make(tmp_path, clock)
    authority = (layout.pki / "ca.crt").read_bytes()
    clock.advance((timedelta(days=365) - RENEW_BEFORE + timedelta(days=1)).total_seconds())

    made = make(tmp_path, clock)[1]

    assert len(made) == len(wanted(layout, SETTINGS))
    assert (layout.pki / "ca.crt").read_bytes() == authority


def test_a_lost_authority_makes_all_anew(tmp_path: Path) -> None:
    layout, _ = make(tmp_path)
    (layout.pki / "ca.key").unlink()

    made = make(tmp_path)[1]

    assert "ca" in made
    assert str(layout.pki / "apiserver") in made


def test_another_address_renews_what_carries_it(tmp_path: Path) -> None:
    layout, _ = make(tmp_path)

    made = make(tmp_path, settings=Settings("a", network=5))[1]

    assert str(layout.pki / "apiserver") in made
    assert "198.18.5.1" in names(layout.pki / "apiserver.crt")


def test_certificates_are_what_a_tls_library_takes(tmp_path: Path) -> None:
    layout, _ = make(tmp_path)
    context = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))

    context.load_cert_chain(str(layout.pki / "admin.crt"), str(layout.pki / "admin.key"))

    assert context.cert_store_stats()["x509_ca"] == 1


@pytest.mark.parametrize("text", ["", "soon"], ids=["empty", "damaged"])
def test_an_unreadable_end_means_renewal(text: str) -> None:
    assert is_due(text, FakeClock().now())
