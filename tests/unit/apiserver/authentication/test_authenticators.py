"""Certificates, static tokens, and the order of authenticators."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tiphys_apimachinery.errors import Unauthorized
from tiphys_apiserver.authentication.anonymous import AnonymousFallback
from tiphys_apiserver.authentication.interface import ANONYMOUS_USER, Credentials
from tiphys_apiserver.authentication.token_file import TokenFileAuthenticator, TokenFileError
from tiphys_apiserver.authentication.union import UnionAuthenticator
from tiphys_apiserver.authentication.x509 import X509Authenticator
from tiphys_component.certificates import CertificateAuthority
from tiphys_component.clock import FakeClock, SystemClock

CA = CertificateAuthority.create("ours")


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


ANN = der(CA.issue("ann", organizations=["dev", "ops"], client=True).cert_pem)


def certificates() -> X509Authenticator:
    return X509Authenticator(CA.cert_pem, SystemClock())


async def test_H1_certificate_names_user_and_groups() -> None:
    user = await certificates().authenticate(Credentials(peer_certificate_der=ANN))
    assert user is not None
    assert user.name == "ann"
    assert sorted(user.groups) == ["dev", "ops", "system:authenticated"]


async def test_known_certificate_is_the_same_user_again() -> None:
    authenticator = certificates()
    first = await authenticator.authenticate(Credentials(peer_certificate_der=ANN))
    assert await authenticator.authenticate(Credentials(peer_certificate_der=ANN)) is first


async def test_H21_authorities_are_read_anew_and_the_old_ones_end_to_be_believed() -> None:
    other = CertificateAuthority.create("new", now=FakeClock().now())
    clock = FakeClock(SystemClock().now())
    file = [CA.cert_pem]
    authenticator = X509Authenticator(CA.cert_pem, clock, reread=lambda: file[0])
    of_new = der(other.issue("eva", client=True).cert_pem)
    assert await authenticator.authenticate(Credentials(peer_certificate_der=ANN)) is not None
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(Credentials(peer_certificate_der=of_new))

    file[0] = b"half writ"
    clock.advance(1)
    assert await authenticator.authenticate(Credentials(peer_certificate_der=ANN)) is not None
    file[0] = other.cert_pem
    clock.advance(1)

    assert await authenticator.authenticate(Credentials(peer_certificate_der=of_new)) is not None
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(Credentials(peer_certificate_der=ANN))


@pytest.mark.parametrize(
    "certificate",
    [
        pytest.param(der(CertificateAuthority.create("ours").issue("ann", client=True).cert_pem), id="other authority"),
        pytest.param(der(CA.issue("ann", server=True).cert_pem), id="for servers"),
        pytest.param(der(CA.issue("ann", client=True, validity=timedelta(seconds=-1)).cert_pem), id="expired"),
        pytest.param(b"rubbish", id="no certificate"),
    ],
)
async def test_bad_certificate_is_refused(certificate: bytes) -> None:
    with pytest.raises(Unauthorized):
        await certificates().authenticate(Credentials(peer_certificate_der=certificate))


async def test_token_file_knows_its_tokens_only() -> None:
    tokens = TokenFileAuthenticator('abc,ann,uid1,"dev,ops"\n# a note\nxyz,bob,uid2\n')
    ann = await tokens.authenticate(Credentials("abc"))
    assert ann is not None
    assert (ann.name, ann.uid, ann.groups) == ("ann", "uid1", ("dev", "ops", "system:authenticated"))
    assert await tokens.authenticate(Credentials("ab")) is None
    assert await tokens.authenticate(Credentials()) is None


@pytest.mark.parametrize("text", ["abc,ann", ",ann,uid", "abc,,uid"])
def test_malformed_token_file_names_the_line(text: str) -> None:
    with pytest.raises(TokenFileError, match="line 1"):
        TokenFileAuthenticator(text)


async def test_A7_nothing_presented_is_anonymous_and_a_bad_credential_is_not() -> None:
    union = UnionAuthenticator(certificates(), TokenFileAuthenticator("abc,ann,1"))
    fallback = AnonymousFallback(union)
    assert await fallback.authenticate(Credentials()) is ANONYMOUS_USER
    with pytest.raises(Unauthorized):
        await fallback.authenticate(Credentials("wrong"))
    with pytest.raises(Unauthorized):
        await fallback.authenticate(Credentials(peer_certificate_der=b"rubbish"))


async def test_good_credential_counts_beside_a_bad_one() -> None:
    union = UnionAuthenticator(certificates(), TokenFileAuthenticator("abc,ann,1"))
    user = await union.authenticate(Credentials("abc", peer_certificate_der=b"rubbish"))
    assert user is not None
    assert user.name == "ann"
