"""A certificate authority of our own, and what can be read from a certificate.

Keys are ECDSA P-256: made in under a millisecond and verified by everything that speaks to Kubernetes. Only the key
that signs service-account tokens is RSA, because RS256 is what every verifier of such tokens has.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Ten years for the authority and one for what it issues, as kubeadm has it.
CA_VALIDITY = timedelta(days=3650)
LEAF_VALIDITY = timedelta(days=365)
# A certificate is valid a little before it is made, so that clocks may differ.
# Source: kube-controller-manager's signer, which backdates by five minutes.
BACKDATE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate and its private key, both PEM; the key does not show in repr()."""

    cert_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return f"Credential({identity(self.cert_pem)})"

    def write(self, cert: Path, key: Path) -> None:
        """Write both files, each whole or not at all; the key is readable by its owner only."""
        write_file(key, self.key_pem, mode=0o600)
        write_file(cert, self.cert_pem, mode=0o644)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a certificate is for: Kubernetes reads the common name as user and the organizations as groups."""

    common_name: str
    organizations: tuple[str, ...]


class CertificateAuthority:
    """Issues and signs certificates; owns one certificate and its key."""

    def __init__(self, credential: Credential) -> None:
        """Use an existing authority. Raises ValueError if it is no authority or the key is not the certificate's."""
        self.credential = credential
        self._cert = x509.load_pem_x509_certificate(credential.cert_pem)
        key = serialization.load_pem_private_key(credential.key_pem, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise ValueError(f"the key of a certificate authority must be ECDSA or RSA, not {type(key).__name__}")
        if key.public_key() != self._cert.public_key():
            raise ValueError(f"{self._cert.subject.rfc4514_string()}: the key is not that of the certificate")
        try:
            constraints = self._cert.extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound:
            constraints = x509.BasicConstraints(ca=False, path_length=None)
        if not constraints.ca:
            raise ValueError(f"{self._cert.subject.rfc4514_string()} is not a certificate authority")
        self._key = key

    @classmethod
    def create(
        cls, common_name: str, *, validity: timedelta = CA_VALIDITY, now: datetime | None = None
    ) -> CertificateAuthority:
        """A new self-signed authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(common_name, ())
        cert = (
            _builder(name, name, key.public_key(), validity, now=now)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(sign_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(Credential(_pem(cert), private_key_pem(key)))

    @classmethod
    def load(cls, cert: Path, key: Path) -> CertificateAuthority:
        """The authority kept in two PEM files; raises OSError or ValueError."""
        return cls(Credential(cert.read_bytes(), key.read_bytes()))

    @property
    def cert_pem(self) -> bytes:
        """The authority's certificate, for those who verify what it issues."""
        return self.credential.cert_pem

    def issue(
        self,
        common_name: str,
        *,
        organizations: Sequence[str] = (),
        sans: Sequence[str] = (),
        server: bool = False,
        client: bool = False,
        validity: timedelta = LEAF_VALIDITY,
        now: datetime | None = None,
    ) -> Credential:
        """A new key and a certificate for it; sans are DNS names and IP addresses, told apart by their form.

        Raises ValueError if it is neither for a server nor for a client.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(common_name, organizations)
        cert = self._sign(key.public_key(), subject, _san(sans), _usages(server, client), validity=validity, now=now)
        return Credential(cert, private_key_pem(key))

    def sign_request(
        self,
        request_pem: bytes,
        *,
        server: bool = False,
        client: bool = False,
        validity: timedelta = LEAF_VALIDITY,
        now: datetime | None = None,
    ) -> bytes:
        """The certificate for a signing request, with the subject and names it asks for; the caller has approved them.

        Raises ValueError if the request is damaged or not signed by its own key.
        """
        request = x509.load_pem_x509_csr(request_pem)
        if not request.is_signature_valid:
            raise ValueError("the certificate signing request is not signed by its own key")
        try:
            names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            names = None
        public_key = cast(ec.EllipticCurvePublicKey, request.public_key())
        return self._sign(public_key, request.subject, names, _usages(server, client), validity=validity, now=now)

    def _sign(
        self,
        public_key: ec.EllipticCurvePublicKey,
        subject: x509.Name,
        names: x509.SubjectAlternativeName | None,
        usages: list[x509.ObjectIdentifier],
        *,
        validity: timedelta,
        now: datetime | None,
    ) -> bytes:
        builder = (
            _builder(
                subject, self._cert.subject, public_key, validity, now=now, not_after=self._cert.not_valid_after_utc
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return _pem(builder.sign(self._key, hashes.SHA256()))


def expires_at(cert_pem: bytes) -> datetime:
    """When a certificate ends; of several the first. Raises ValueError if it is none."""
    return x509.load_pem_x509_certificate(cert_pem).not_valid_after_utc


def identity(cert_pem: bytes) -> Identity:
    """Whom a certificate names; raises ValueError if it can't be read."""
    subject = x509.load_pem_x509_certificate(cert_pem).subject
    names = [str(item.value) for item in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = tuple(str(item.value) for item in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
    return Identity(names[0] if names else "", groups)


def not_after(cert_pem: bytes) -> datetime:
    """When a certificate ends, in UTC; raises ValueError if it can't be read."""
    return x509.load_pem_x509_certificate(cert_pem).not_valid_after_utc


def create_request(
    common_name: str, *, organizations: Sequence[str] = (), sans: Sequence[str] = ()
) -> tuple[bytes, bytes]:
    """A new key and a request to sign a certificate for it: (request PEM, key PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(common_name, organizations))
    names = _san(sans)
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    request = builder.sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM), private_key_pem(key)


def create_service_account_key() -> tuple[bytes, bytes]:
    """A new RSA key of 2048 bits that signs service-account tokens: (private PEM, public PEM). Takes 50-300 ms."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private_key_pem(key), public


def private_key_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """The key in PEM, PKCS #8, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_file(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file whole or not at all, with these permissions from its first byte on; makes its folder (0755)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _name(common_name: str, organizations: Sequence[str]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, text) for text in organizations]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _san(sans: Sequence[str]) -> x509.SubjectAlternativeName | None:
    names: list[x509.GeneralName] = []
    for text in dict.fromkeys(sans):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(text)))
        except ValueError:
            names.append(x509.DNSName(text))
    return x509.SubjectAlternativeName(names) if names else None


def _usages(server: bool, client: bool) -> list[x509.ObjectIdentifier]:
    usages = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
    if not usages:
        raise ValueError("a certificate must be for a server, a client or both")
    return usages


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    validity: timedelta,
    *,
    now: datetime | None,
    not_after: datetime | None = None,
) -> x509.CertificateBuilder:
    start = now or datetime.now(UTC)
    end = min(start + validity, not_after) if not_after else start + validity
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - BACKDATE)
        .not_valid_after(end)
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)
