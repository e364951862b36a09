"""The certificate authority."""

import stat
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tiphys_component.certificates import (
    CertificateAuthority,
    Credential,
    Identity,
    create_request,
    create_service_account_key,
    identity,
    not_after,
)

CA = CertificateAuthority.create("kubernetes")


def _cert(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def test_issued_certificate_names_its_owner_and_is_signed() -> None:
    issued = CA.issue("system:node:n1", organizations=("system:nodes",), client=True)
    assert identity(issued.cert_pem) == Identity("system:node:n1", ("system:nodes",))
    _cert(issued.cert_pem).verify_directly_issued_by(_cert(CA.cert_pem))
    usage = _cert(issued.cert_pem).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_names_are_told_from_addresses() -> None:
    issued = CA.issue("kube-apiserver", sans=("kubernetes.default", "10.96.0.1", "::1", "10.96.0.1"), server=True)
    names = _cert(issued.cert_pem).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["kubernetes.default"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("10.96.0.1"), ip_address("::1")]


def test_certificate_does_not_outlive_its_authority() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    young = CertificateAuthority.create("x", validity=timedelta(days=2), now=now)
    issued = young.issue("a", client=True, now=now)
    assert not_after(issued.cert_pem) == now + timedelta(days=2)


def test_certificate_without_a_use_is_refused() -> None:
    with pytest.raises(ValueError, match="server, a client or both"):
        CA.issue("nobody")


def test_request_is_signed_with_the_names_it_asks_for() -> None:
    request, _key = create_request("system:node:n2", organizations=("system:nodes",), sans=("n2", "198.18.1.2"))
    cert = CA.sign_request(request, server=True, client=True)
    assert identity(cert) == Identity("system:node:n2", ("system:nodes",))
    names = _cert(cert).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["n2"]


def test_authority_survives_its_files(tmp_path: Path) -> None:
    CA.credential.write(tmp_path / "pki" / "ca.crt", tmp_path / "pki" / "ca.key")
    loaded = CertificateAuthority.load(tmp_path / "pki" / "ca.crt", tmp_path / "pki" / "ca.key")
    assert loaded.cert_pem == CA.cert_pem
    assert stat.S_IMODE((tmp_path / "pki" / "ca.key").stat().st_mode) == 0o600
    assert sorted(path.name for path in (tmp_path / "pki").iterdir()) == ["ca.crt", "ca.key"]


def test_a_leaf_is_no_authority() -> None:
    with pytest.raises(ValueError, match="not a certificate authority"):
        CertificateAuthority(CA.issue("a", client=True))


def test_a_foreign_key_is_refused() -> None:
    other = CA.issue("a", client=True)
    with pytest.raises(ValueError, match="not that of the certificate"):
        CertificateAuthority(Credential(CA.cert_pem, other.key_pem))


def test_the_key_does_not_show() -> None:
    assert "PRIVATE" not in repr(CA.credential)


@pytest.mark.slow
def test_service_account_key_is_rsa() -> None:
    private, public = create_service_account_key()
    assert private.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert public.startswith(b"-----BEGIN PUBLIC KEY-----")
