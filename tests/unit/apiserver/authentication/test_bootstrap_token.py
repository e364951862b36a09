"""Bootstrap tokens: which hold, and whom they make of the caller."""

from __future__ import annotations

import pytest

from tests.unit.apiserver.fake_objects import FakeObjects
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys_apimachinery.errors import Unauthorized
from tiphys_apiserver.authentication.bootstrap_token import BootstrapTokenAuthenticator
from tiphys_apiserver.authentication.interface import Credentials, UserInfo
from tiphys_component.clock import FakeClock

_TOKEN = "abcdef.0123456789abcdef"
_GOOD = {
    "token-id": "abcdef",
    "token-secret": "0123456789abcdef",
    "usage-bootstrap-authentication": "true",
    "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
    "expiration": "2026-01-01T00:00:01Z",
}


async def _ask(data: dict[str, str], token: str = _TOKEN, **secret: str) -> UserInfo | None:
    stored = Secret(type=secret.get("type", "bootstrap.kubernetes.io/token"))
    stored.metadata.name, stored.metadata.namespace = "bootstrap-token-abcdef", "kube-system"
    for key, value in data.items():
        stored.data[key] = value.encode()
    authenticator = BootstrapTokenAuthenticator(FakeObjects(stored), FakeClock())
    return await authenticator.authenticate(Credentials(token))


async def test_H1_bootstrap_token_is_a_user_of_the_bootstrappers() -> None:
    user = await _ask(_GOOD)

    assert user is not None
    assert user.name == "system:bootstrap:abcdef"
    assert user.groups == (
        "system:bootstrappers",
        "system:bootstrappers:kubeadm:default-node-token",
        "system:authenticated",
    )


@pytest.mark.parametrize(
    ("changes", "secret"),
    [
        pytest.param({"token-secret": "x" * 16}, {}, id="wrong secret"),
        pytest.param({"token-id": "fedcba"}, {}, id="another id inside"),
        pytest.param({"expiration": "2026-01-01T00:00:00Z"}, {}, id="expired"),
        pytest.param({"expiration": "soon"}, {}, id="no time"),
        pytest.param({"usage-bootstrap-authentication": "false"}, {}, id="not for authentication"),
        pytest.param({"auth-extra-groups": "system:masters"}, {}, id="group of others"),
        pytest.param({}, {"type": "Opaque"}, id="another type"),
    ],
)
async def test_token_that_does_not_hold_is_refused(changes: dict[str, str], secret: dict[str, str]) -> None:
    with pytest.raises(Unauthorized):
        await _ask({**_GOOD, **changes}, **secret)


@pytest.mark.parametrize("token", ["fedcba.0123456789abcdef", "abcdef.short", "a.b.c", ""])
async def test_other_tokens_are_left_to_others(token: str) -> None:
    assert await _ask(_GOOD, token) is None
