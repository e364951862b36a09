"""Client certificates: the common name is the user, organizations are the groups."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tiphys_apimachinery.errors import Unauthorized
from tiphys_apiserver.authentication.interface import Credentials, UserInfo
from tiphys_apiserver.authentication.union import authenticated
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger

_log = get_logger(__name__)

_CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
# Certificates whose user is remembered; the least used is dropped first.
_CACHE_SIZE = 4096
_LOOK_EVERY_S = 1.0


# How long certificates still hold when they are shown is told so often of each: often enough for a rate of 5 minutes.
_TELL_EVERY = timedelta(minutes=1)


@dataclass(slots=True)
class _Known:
    """A certificate that was verified, until when it holds, and when to tell of that again."""

    user: UserInfo
    not_before: datetime
    not_after: datetime
    tell_at: datetime


class X509Authenticator:
    """Takes certificates that one of the client authorities signed for client use.

    TLS has verified the chain before; the signature is checked again here, once per certificate, so that a door with
    another trust store (gRPC, front proxy) cannot widen who is let in. Parsing costs 100 µs, a repeat 1 µs.
    """

    def __init__(self, authorities_pem: bytes, clock: Clock, *, reread: Callable[[], bytes] | None = None) -> None:
        """Raises ValueError. reread gives the authorities as they are now; it is asked at most once a second."""
        # Told the seconds that a certificate still holds.
        self.lifetimes: Callable[[float], None] = _unheard
        self._pem = authorities_pem
        self._authorities: Sequence[x509.Certificate] = x509.load_pem_x509_certificates(authorities_pem)
        self._clock = clock
        self._reread = reread
        self._look_at = clock.monotonic() + _LOOK_EVERY_S
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        """The certificate's user. Raises Unauthorized for one that is expired, foreign or without a name."""
        der = credentials.peer_certificate_der
        if not der:
            return None
        if self._reread is not None and self._clock.monotonic() >= self._look_at:
            self._follow(self._reread)
        known = self._known.get(der)
        if known is None:
            known = self._verify(der)
            self._known[der] = known
            if len(self._known) > _CACHE_SIZE:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(der)
        now = self._clock.now()
        if not known.not_before <= now <= known.not_after:
            raise Unauthorized("x509: certificate has expired or is not yet valid")
        if now >= known.tell_at:
            known.tell_at = now + _TELL_EVERY
            self.lifetimes((known.not_after - now).total_seconds())
        return known.user

    def _follow(self, reread: Callable[[], bytes]) -> None:
        """Take other authorities, and forget whom the old ones vouched for. What can't be used leaves the old ones."""
        self._look_at = self._clock.monotonic() + _LOOK_EVERY_S
        try:
            pem = reread()
            if pem == self._pem:
                return
            authorities = x509.load_pem_x509_certificates(pem)
        except (OSError, ValueError) as err:
            _log.warning("authorities of clients can't be read anew", err=str(err))
            return
        self._pem, self._authorities = pem, authorities
        self._known.clear()
        _log.info("authorities of clients reloaded", count=len(authorities))

    def _verify(self, der: bytes) -> _Known:
        try:
            certificate = x509.load_der_x509_certificate(der)
        except ValueError as err:
            raise Unauthorized("x509: certificate cannot be parsed") from err
        if not any(_is_issued_by(certificate, authority) for authority in self._authorities):
            raise Unauthorized("x509: certificate signed by unknown authority")
        if not _is_for_clients(certificate):
            raise Unauthorized("x509: certificate is not meant for client authentication")
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if not names:
            raise Unauthorized("x509: certificate has no common name")
        organizations = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        groups = tuple(str(attribute.value) for attribute in organizations)
        extra = {_CREDENTIAL_ID: (f"X509SHA256={hashlib.sha256(der).hexdigest()}",)}
        user = authenticated(str(names[0].value), groups, extra=extra)
        begins = certificate.not_valid_before_utc
        return _Known(user, begins, certificate.not_valid_after_utc, tell_at=begins)


def _is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _is_for_clients(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.CLIENT_AUTH in usage or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage


def _unheard(_seconds: float) -> None:
    """Nobody counts."""
