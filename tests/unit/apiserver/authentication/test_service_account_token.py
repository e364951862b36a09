"""Tokens of service accounts, from request to review."""

from __future__ import annotations

import itertools
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.unit.apiserver.fake_objects import FakeObjects, build, read
from tiphys.api.authentication.v1.authentication_pb2 import TokenRequest, TokenReview
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys.api.core.v1.service_account_pb2 import ServiceAccount
from tiphys_apimachinery.errors import APIError, Unauthorized
from tiphys_apimachinery.meta import to_time
from tiphys_apiserver.authentication.interface import Credentials, UserInfo
from tiphys_apiserver.authentication.reviews import TokenReviews
from tiphys_apiserver.authentication.service_account_token import ServiceAccountAuthenticator, TokenSigner
from tiphys_apiserver.authentication.signing_keys import SigningKey, load_signing_key
from tiphys_apiserver.authentication.token_request import TokenRequests
from tiphys_apiserver.authentication.union import UnionAuthenticator
from tiphys_component.clock import FakeClock

ISSUER = "https://kubernetes.default.svc"
ANN = UserInfo("ann")


def _pem(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


# An RSA key takes 50 ms to make: once for all tests.
RSA_KEY = load_signing_key(_pem(rsa.generate_private_key(65537, 2048)))
EC_KEY = load_signing_key(_pem(ec.generate_private_key(ec.SECP256R1())))


class Bench:
    """A server's part for tokens, on a clock that stands still."""

    def __init__(self, key: SigningKey = EC_KEY) -> None:
        self.clock = FakeClock()
        self.objects = FakeObjects(
            read(ServiceAccount, "metadata: {name: bot, namespace: ci, uid: sa-uid}"),
            read(Node, "metadata: {name: n1, uid: node-uid}"),
            read(Secret, "metadata: {name: s, namespace: ci, uid: secret-uid}"),
            self.pod(),
        )
        numbers = itertools.count(1)
        signer = TokenSigner(ISSUER, key)
        self.requests = TokenRequests(
            signer, self.objects, self.clock, api_audiences=[ISSUER], new_uid=lambda: f"jti-{next(numbers)}"
        )
        keys = {key.public.key_id: key.public}
        self.authenticator = ServiceAccountAuthenticator(
            [ISSUER], keys, api_audiences=[ISSUER], objects=self.objects, clock=self.clock
        )

    @staticmethod
    def pod(uid: str = "pod-uid") -> Pod:
        return build(
            Pod,
            metadata={"name": "p", "namespace": "ci", "uid": uid},
            spec={"nodeName": "n1", "serviceAccountName": "bot"},
        )

    async def request(self, **spec: Any) -> Any:
        return await self.requests.create(ANN, build(TokenRequest, spec=spec), namespace="ci", name="bot")

    async def token(self, **spec: Any) -> str:
        return str((await self.request(**spec)).status.token)

    async def user(self, token: str, *audiences: str) -> UserInfo | None:
        return await self.authenticator.authenticate(Credentials(token, audiences=audiences))


def bound(kind: str, name: str, uid: str = "") -> dict[str, str]:
    return {"kind": kind, "apiVersion": "v1", "name": name, **({"uid": uid} if uid else {})}


@pytest.mark.parametrize("key", [pytest.param(RSA_KEY, id="RS256"), pytest.param(EC_KEY, id="ES256")])
async def test_H8_token_proves_its_account(key: SigningKey) -> None:
    bench = Bench(key)
    user = await bench.user(await bench.token())
    assert user is not None
    assert (user.name, user.uid) == ("system:serviceaccount:ci:bot", "sa-uid")
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:ci", "system:authenticated")
    assert user.extra["authentication.kubernetes.io/credential-id"] == ("JTI=jti-1",)


async def test_pod_bound_token_names_pod_and_node() -> None:
    bench = Bench()
    token = await bench.token(boundObjectRef=bound("Pod", "p", "pod-uid"), expirationSeconds=3607)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["kubernetes.io"] == {
        "namespace": "ci",
        "node": {"name": "n1", "uid": "node-uid"},
        "pod": {"name": "p", "uid": "pod-uid"},
        "serviceaccount": {"name": "bot", "uid": "sa-uid"},
    }
    assert claims["exp"] - claims["iat"] == 3607
    user = await bench.user(token)
    assert user is not None
    assert user.extra["authentication.kubernetes.io/pod-uid"] == ("pod-uid",)
    assert user.extra["authentication.kubernetes.io/node-name"] == ("n1",)


async def test_token_ends_with_its_time() -> None:
    bench = Bench()
    token = await bench.token(expirationSeconds=600)
    bench.clock.advance(600)
    assert await bench.user(token) is not None
    bench.clock.advance(60)
    with pytest.raises(Unauthorized):
        await bench.user(token)


@pytest.mark.parametrize(
    ("reference", "cls", "name"),
    [
        pytest.param(None, ServiceAccount, "bot", id="account"),
        pytest.param(bound("Pod", "p"), Pod, "p", id="pod"),
        pytest.param(bound("Secret", "s"), Secret, "s", id="secret"),
    ],
)
async def test_token_dies_with_what_it_is_bound_to(reference: Any, cls: Any, name: str) -> None:
    bench = Bench()
    token = await bench.token(**({"boundObjectRef": reference} if reference else {}))
    assert await bench.user(token) is not None
    await bench.objects.delete(cls, name, "ci")
    with pytest.raises(Unauthorized):
        await bench.user(token)


async def test_token_of_a_pod_does_not_hold_for_its_successor() -> None:
    bench = Bench()
    token = await bench.token(boundObjectRef=bound("Pod", "p"))
    bench.objects.put(bench.pod(uid="another"))
    with pytest.raises(Unauthorized):
        await bench.user(token)


async def test_token_outlives_the_mark_of_deletion_by_a_minute() -> None:
    bench = Bench()
    token = await bench.token(boundObjectRef=bound("Pod", "p"))
    pod = bench.pod()
    pod.metadata.deletionTimestamp.CopyFrom(to_time(bench.clock.now()))
    bench.objects.put(pod)
    bench.clock.advance(59)
    assert await bench.user(token) is not None
    bench.clock.advance(2)
    with pytest.raises(Unauthorized):
        await bench.user(token)


async def test_token_of_another_key_is_refused_and_of_another_issuer_not_looked_at() -> None:
    bench = Bench()
    forged = jwt.encode({"iss": ISSUER, "sub": "x"}, RSA_KEY.key, algorithm="RS256")
    with pytest.raises(Unauthorized):
        await bench.user(forged)
    foreign = jwt.encode({"iss": "https://elsewhere", "sub": "x"}, RSA_KEY.key, algorithm="RS256")
    assert await bench.user(foreign) is None
    assert await bench.user("opaque") is None


async def test_public_key_taken_for_a_secret_signs_nothing() -> None:
    bench = Bench()
    forged = jwt.encode({"iss": ISSUER, "sub": "x"}, "k" * 32, algorithm="HS256")
    with pytest.raises(Unauthorized):
        await bench.user(forged)


async def test_token_for_another_audience_is_refused_here() -> None:
    bench = Bench()
    token = await bench.token(audiences=["vault"])
    with pytest.raises(Unauthorized):
        await bench.user(token)
    assert await bench.user(token, "vault") is not None


@pytest.mark.parametrize(
    ("spec", "code", "text"),
    [
        pytest.param({"expirationSeconds": 599}, 422, "less than 10 minutes", id="too short"),
        pytest.param({"expirationSeconds": 2**32 + 1}, 422, "larger than 2^32 seconds", id="too long"),
        pytest.param({"boundObjectRef": bound("Pod", "gone")}, 404, 'pods "gone" not found', id="no such pod"),
        pytest.param({"boundObjectRef": bound("Pod", "p", "old")}, 409, "does not match the UID in record", id="uid"),
        pytest.param({"boundObjectRef": bound("ConfigMap", "x")}, 400, "cannot bind token", id="kind"),
    ],
)
async def test_bad_request_makes_no_token(spec: dict[str, Any], code: int, text: str) -> None:
    with pytest.raises(APIError) as refused:
        await Bench().token(**spec)
    assert refused.value.code == code
    assert text in refused.value.message


async def test_token_for_a_pod_of_another_account_is_refused() -> None:
    bench = Bench()
    bench.objects.put(read(ServiceAccount, "metadata: {name: default, namespace: ci}"))
    request = build(TokenRequest, spec={"boundObjectRef": bound("Pod", "p")})
    with pytest.raises(APIError) as refused:
        await bench.requests.create(ANN, request, namespace="ci", name="default")
    assert refused.value.code == 400


async def test_answer_holds_defaults_and_expiry() -> None:
    bench = Bench()
    answer = await bench.request()
    assert (list(answer.spec.audiences), answer.spec.expirationSeconds) == ([ISSUER], 3600)
    assert answer.status.expirationTimestamp.seconds == int(bench.clock.now().timestamp()) + 3600


async def review(bench: Bench, token: str, *audiences: str) -> Any:
    reviews = TokenReviews(UnionAuthenticator(bench.authenticator), [ISSUER])
    return await reviews.create(ANN, build(TokenReview, spec={"token": token, "audiences": list(audiences)}))


async def test_review_tells_whose_token_it_is_and_for_whom() -> None:
    bench = Bench()
    status = (await review(bench, await bench.token(audiences=["vault", ISSUER]), "vault", "other")).status
    assert status.authenticated
    assert status.user.username == "system:serviceaccount:ci:bot"
    assert list(status.audiences) == ["vault"]


async def test_review_of_a_bad_token_says_so_without_failing() -> None:
    status = (await review(Bench(), "nonsense")).status
    assert not status.authenticated
    assert "invalid bearer token" in status.error
