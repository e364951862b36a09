"""Token webhooks and front proxies: users that somebody else vouches for."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from multidict import CIMultiDict

from tiphys_apimachinery.errors import Unauthorized
from tiphys_apiserver.authentication.interface import Credentials
from tiphys_apiserver.authentication.request_header import RequestHeaderAuthenticator, RequestHeaders
from tiphys_apiserver.authentication.review_client import ReviewFailed
from tiphys_apiserver.authentication.webhook import WebhookTokenAuthenticator
from tiphys_apiserver.authentication.x509 import X509Authenticator
from tiphys_component.certificates import CertificateAuthority
from tiphys_component.clock import FakeClock, SystemClock


class _Reviewer:
    def __init__(self, status: dict[str, Any] | None) -> None:
        self.status = status
        self.asked: list[dict[str, Any]] = []

    async def post(self, review: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(review)
        if self.status is None:
            raise ReviewFailed("down")
        return {"status": self.status}


def _webhook(reviewer: _Reviewer, clock: FakeClock) -> WebhookTokenAuthenticator:
    return WebhookTokenAuthenticator(reviewer, clock, version="v1", cache_ttl_s=120.0)


async def test_H1_webhook_says_whose_a_token_is_and_is_believed_for_a_while() -> None:
    user = {"username": "ann", "uid": "7", "groups": ["dev"], "extra": {"team": ["a", "b"]}}
    reviewer, clock = _Reviewer({"authenticated": True, "user": user}), FakeClock()
    authenticator = _webhook(reviewer, clock)

    for _ in range(2):
        found = await authenticator.authenticate(Credentials("t"))
        assert found is not None
        assert (found.name, found.uid, found.groups) == ("ann", "7", ("dev", "system:authenticated"))
        assert found.extra == {"team": ("a", "b")}
    wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "t"}}
    assert reviewer.asked == [wanted]

    clock.advance(121)
    await authenticator.authenticate(Credentials("t"))
    assert len(reviewer.asked) == 2


async def test_token_that_the_webhook_does_not_know_is_left_to_others_and_kept() -> None:
    reviewer = _Reviewer({"authenticated": False})
    authenticator = _webhook(reviewer, FakeClock())

    assert await authenticator.authenticate(Credentials("t")) is None
    assert await authenticator.authenticate(Credentials("t")) is None
    assert len(reviewer.asked) == 1


async def test_failure_of_the_webhook_refuses_and_is_not_kept() -> None:
    reviewer = _Reviewer(None)
    authenticator = _webhook(reviewer, FakeClock())
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(Credentials("t"))

    reviewer.status = {"authenticated": True, "user": {"username": "ann"}}
    assert await authenticator.authenticate(Credentials("t")) is not None


async def test_webhook_that_knows_no_audiences_vouches_for_none() -> None:
    reviewer = _Reviewer({"authenticated": True, "user": {"username": "ann"}})
    authenticator = _webhook(reviewer, FakeClock())

    assert await authenticator.authenticate(Credentials("t", audiences=("vault",))) is None
    reviewer.status = {"authenticated": True, "user": {"username": "ann"}, "audiences": ["vault"]}
    assert await authenticator.authenticate(Credentials("u", audiences=("vault",))) is not None


_PROXIES = CertificateAuthority.create("proxies")
_OTHERS = CertificateAuthority.create("others")


def _der(authority: CertificateAuthority, name: str) -> bytes:
    pem = authority.issue(name, client=True).cert_pem
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


_HEADERS = CIMultiDict(
    [
        ("X-Remote-User", "ann"),
        ("X-Remote-Group", "dev"),
        ("X-Remote-Group", "ops"),
        ("X-Remote-Extra-Acme.com%2fTeam", "a"),
        ("X-Remote-Uid", "7"),
    ]
)


def _front_proxies(*names: str) -> RequestHeaderAuthenticator:
    headers = RequestHeaders(uid=("x-remote-uid",))
    return RequestHeaderAuthenticator(X509Authenticator(_PROXIES.cert_pem, SystemClock()), names, headers)


async def test_H1_front_proxy_names_user_groups_and_extra() -> None:
    credentials = Credentials(peer_certificate_der=_der(_PROXIES, "front"), headers=_HEADERS)

    user = await _front_proxies("front").authenticate(credentials)

    assert user is not None
    assert (user.name, user.uid, user.groups) == ("ann", "7", ("dev", "ops", "system:authenticated"))
    assert user.extra == {"acme.com/team": ("a",)}


@pytest.mark.parametrize(
    "credentials",
    [
        pytest.param(Credentials(headers=_HEADERS), id="no certificate"),
        pytest.param(
            Credentials(peer_certificate_der=_der(_OTHERS, "front"), headers=_HEADERS), id="of another authority"
        ),
        pytest.param(Credentials(peer_certificate_der=_der(_PROXIES, "back"), headers=_HEADERS), id="another name"),
        pytest.param(Credentials(peer_certificate_der=_der(_PROXIES, "front")), id="no user"),
    ],
)
async def test_headers_of_others_are_not_believed(credentials: Credentials) -> None:
    assert await _front_proxies("front").authenticate(credentials) is None
