"""ID tokens: which hold, whom they name, and how keys are renewed."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tiphys_apimachinery.errors import Unauthorized
from tiphys_apiserver.authentication.interface import Credentials, UserInfo
from tiphys_apiserver.authentication.oidc import FetchFailed, OIDCAuthenticator, OIDCSettings
from tiphys_apiserver.authentication.signing_keys import VerifyingKey
from tiphys_component.clock import FakeClock

_ISSUER = "https://issuer.test"
_KEYS = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("one", "two")}


class _Issuer:
    """The issuer's documents; counts what is asked."""

    def __init__(self) -> None:
        self.published = ["one"]
        self.name = _ISSUER
        self.is_up = True
        self.asked = 0

    async def get(self, url: str) -> dict[str, Any]:
        self.asked += 1
        if not self.is_up:
            raise FetchFailed("down")
        if url == f"{_ISSUER}/.well-known/openid-configuration":
            return {"issuer": self.name, "jwks_uri": f"{_ISSUER}/keys"}
        assert url == f"{_ISSUER}/keys"
        return {"keys": [VerifyingKey.of(_KEYS[name].public_key()).to_jwk() | {"kid": name} for name in self.published]}


def _token(key: str = "one", signed_by: str = "", **claims: Any) -> str:
    now = int(FakeClock().now().timestamp())
    body = {"iss": _ISSUER, "aud": "kubectl", "sub": "ann", "exp": now + 60, **claims}
    return jwt.encode(body, _KEYS[signed_by or key], algorithm="ES256", headers={"kid": key})


def _authenticator(issuer: _Issuer, clock: FakeClock | None = None, **settings: Any) -> OIDCAuthenticator:
    wanted = OIDCSettings(issuer=_ISSUER, client_id="kubectl", signing_algs=("ES256",), **settings)
    return OIDCAuthenticator(wanted, issuer, clock or FakeClock())


async def _ask(token: str, **settings: Any) -> UserInfo | None:
    return await _authenticator(_Issuer(), **settings).authenticate(Credentials(token))


@pytest.mark.parametrize(
    ("claims", "settings", "name", "groups"),
    [
        pytest.param({}, {}, f"{_ISSUER}#ann", (), id="subject of the issuer"),
        pytest.param({}, {"username_prefix": "-"}, "ann", (), id="without prefix"),
        pytest.param({}, {"username_prefix": "oidc:"}, "oidc:ann", (), id="prefix"),
        pytest.param({"email": "a@b.c"}, {"username_claim": "email"}, "a@b.c", (), id="email"),
        pytest.param(
            {"roles": ["dev", "ops"]},
            {"username_prefix": "-", "groups_claim": "roles", "groups_prefix": "oidc:"},
            "ann",
            ("oidc:dev", "oidc:ops"),
            id="groups",
        ),
        pytest.param({"roles": "dev"}, {"username_prefix": "-", "groups_claim": "roles"}, "ann", ("dev",), id="one"),
        pytest.param({"hd": "x"}, {"username_prefix": "-", "required_claims": {"hd": "x"}}, "ann", (), id="required"),
    ],
)
async def test_H1_id_token_names_user_and_groups(
    claims: dict[str, Any], settings: dict[str, Any], name: str, groups: tuple[str, ...]
) -> None:
    user = await _ask(_token(**claims), **settings)

    assert user is not None
    assert user.name == name
    assert user.groups == (*groups, "system:authenticated")


@pytest.mark.parametrize(
    ("token", "settings"),
    [
        pytest.param(_token(aud="other"), {}, id="for another client"),
        pytest.param(_token(exp=1), {}, id="expired"),
        pytest.param(_token(nbf=4102444800), {}, id="not valid yet"),
        pytest.param(_token(signed_by="two"), {}, id="signed by another"),
        pytest.param(_token(key="two"), {}, id="unknown key"),
        pytest.param(_token(sub=""), {}, id="no name"),
        pytest.param(_token(email="a@b.c", email_verified=False), {"username_claim": "email"}, id="email not verified"),
        pytest.param(_token(), {"required_claims": {"hd": "x"}}, id="required claim"),
        pytest.param(_token(groups=7), {"groups_claim": "groups"}, id="groups that are none"),
    ],
)
async def test_id_token_that_does_not_hold_is_refused(token: str, settings: dict[str, Any]) -> None:
    with pytest.raises(Unauthorized):
        await _ask(token, **settings)


async def test_tokens_of_others_are_left_to_others() -> None:
    assert await _ask(_token(iss="https://other.test")) is None
    assert await _ask("abcdef.0123456789abcdef") is None


async def test_new_key_is_found_without_restart_and_the_issuer_is_not_asked_more_than_needed() -> None:
    issuer, clock = _Issuer(), FakeClock()
    authenticator = _authenticator(issuer, clock)
    await authenticator.authenticate(Credentials(_token()))
    issuer.published = ["one", "two"]
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(Credentials(_token("two")))
    assert issuer.asked == 2

    clock.advance(11)

    assert await authenticator.authenticate(Credentials(_token("two"))) is not None
    assert await authenticator.authenticate(Credentials(_token("one"))) is not None
    assert issuer.asked == 4


async def test_issuer_that_is_down_leaves_known_keys_good() -> None:
    issuer, clock = _Issuer(), FakeClock()
    authenticator = _authenticator(issuer, clock)
    issuer.is_up = False
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(Credentials(_token()))
    issuer.is_up = True
    clock.advance(11)
    await authenticator.authenticate(Credentials(_token()))
    issuer.is_up = False
    clock.advance(4000)

    token = _token(exp=int(clock.now().timestamp()) + 60)
    assert await authenticator.authenticate(Credentials(token)) is not None


async def test_issuer_under_another_name_is_not_believed() -> None:
    issuer = _Issuer()
    issuer.name = "https://evil.test"

    with pytest.raises(Unauthorized):
        await _authenticator(issuer).authenticate(Credentials(_token()))
