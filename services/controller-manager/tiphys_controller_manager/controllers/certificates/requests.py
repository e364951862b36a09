"""What signing requests ask for, and which of them Kubernetes' own signers may sign. No I/O.

Source: kubernetes pkg/apis/certificates/helpers.go, pkg/controller/certificates/signer/signer.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from tiphys_apimachinery.meta import to_datetime

CLIENT: Final = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT: Final = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING: Final = "kubernetes.io/kubelet-serving"
LEGACY: Final = "kubernetes.io/legacy-unknown"
SIGNERS: Final = frozenset({CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY})

APPROVED, DENIED, FAILED = "Approved", "Denied", "Failed"
_NODE_PREFIX = "system:node:"
_NODES = "system:nodes"
_BASE_USAGES = frozenset({"digital signature", "key encipherment"})
_MIN_LIFETIME = timedelta(minutes=10)
# How long a request is kept. Source: pkg/controller/certificates/cleaner/cleaner.go.
_KEEP_ANSWERED = timedelta(hours=1)
_KEEP_PENDING = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is in the PEM of a request."""

    common_name: str
    organizations: tuple[str, ...]
    dns_names: int = 0
    ip_addresses: int = 0
    other_names: int = 0


class BadRequestPem(ValueError):
    """The request holds no signing request that can be read."""


def read_request(pem: bytes) -> Asked:
    """What the request asks for. Raises BadRequestPem."""
    try:
        request = x509.load_pem_x509_csr(pem)
        names = [str(item.value) for item in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        groups = tuple(str(item.value) for item in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
        try:
            san = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            san = None
    except ValueError as err:
        raise BadRequestPem(str(err)) from err
    dns = len(san.get_values_for_type(x509.DNSName)) if san is not None else 0
    ips = len(san.get_values_for_type(x509.IPAddress)) if san is not None else 0
    others = len(list(san)) - dns - ips if san is not None else 0
    return Asked(names[0] if names else "", groups, dns, ips, others)


def fault(signer: str, asked: Asked, usages: frozenset[str]) -> str:
    """Why the signer may not sign the request; empty where it may."""
    if signer == LEGACY:
        return "" if usages & {"client auth", "server auth"} else "usages did not match: client auth or server auth"
    if signer == CLIENT:
        return _usage_fault(usages, "client auth", base_is_free=True)
    if asked.organizations != (_NODES,):
        return "organization is not system:nodes"
    if not asked.common_name.startswith(_NODE_PREFIX):
        return "common name does not start with 'system:node:'"
    if signer == KUBELET_CLIENT:
        if asked.dns_names or asked.ip_addresses or asked.other_names:
            return "DNS, IP, email and URI subjectAltNames are not allowed"
        return _usage_fault(usages, "client auth")
    if not asked.dns_names and not asked.ip_addresses:
        return "DNS or IP subjectAltName is required"
    if asked.other_names:
        return "email and URI subjectAltNames are not allowed"
    return _usage_fault(usages, "server auth")


def _usage_fault(usages: frozenset[str], wanted: str, *, base_is_free: bool = False) -> str:
    rest = usages - {wanted}
    fits = wanted in usages and rest <= _BASE_USAGES and (base_is_free or "digital signature" in rest)
    return "" if fits else f"usages did not match: {', '.join(sorted(usages))}"


def lifetime(wanted_s: int | None, most: timedelta) -> timedelta:
    """How long the certificate is to hold: what is asked for, between ten minutes and the most there is."""
    if wanted_s is None:
        return most
    return max(_MIN_LIFETIME, min(timedelta(seconds=wanted_s), most))


def conditions(request: Any) -> dict[str, Any]:
    """The conditions of a request by type; one that says False does not count."""
    return {condition.type: condition for condition in request.status.conditions if condition.status != "False"}


def is_approved(request: Any) -> bool:
    """Whether a signer may go on: approved, and neither denied nor failed."""
    found = conditions(request)
    return APPROVED in found and DENIED not in found and FAILED not in found


def is_pending(request: Any) -> bool:
    """Whether nobody has judged it yet."""
    found = conditions(request)
    return APPROVED not in found and DENIED not in found


def ends_at(request: Any) -> datetime:
    """When the request is of no more use and may be deleted."""
    created = _time(request.metadata.creationTimestamp)
    found = conditions(request)
    ends = created + _KEEP_PENDING
    for kind in (APPROVED, DENIED, FAILED):
        if kind in found:
            ends = min(ends, _time(found[kind].lastUpdateTime) + _KEEP_ANSWERED)
    if request.status.certificate:
        try:
            ends = min(ends, x509.load_pem_x509_certificate(request.status.certificate).not_valid_after_utc)
        except ValueError:
            # Signed by others, in a form that we can't read: the other times count.
            return ends
    return ends


def _time(stamp: Any) -> datetime:
    """The time of a stamp; one that is not set is long past."""
    return to_datetime(stamp) or datetime.min.replace(tzinfo=UTC)
