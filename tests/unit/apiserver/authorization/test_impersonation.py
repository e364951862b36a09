"""Acting as another user."""

from __future__ import annotations

import pytest

from tiphys_apimachinery.errors import BadRequest, Forbidden
from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.authorization.impersonation import Impersonation, impersonate, read_headers
from tiphys_apiserver.authorization.interface import Attributes, Decision, Verdict
from tiphys_apiserver.authorization.union import AlwaysAllow

CALLER = UserInfo("boss")


class Only:
    """Allows these (resource, name) pairs."""

    def __init__(self, *allowed: tuple[str, str]) -> None:
        self.allowed = allowed
        self.asked: list[Attributes] = []

    async def authorize(self, attributes: Attributes) -> Decision:
        self.asked.append(attributes)
        ok = (attributes.resource, attributes.name) in self.allowed
        return Decision(Verdict.ALLOW if ok else Verdict.NO_OPINION)


def test_headers_are_read_whatever_their_case() -> None:
    headers = [
        ("Impersonate-User", "ann"), ("impersonate-group", "a"), ("Impersonate-Group", "b"),
        ("Impersonate-Extra-Scopes", "s"), ("Accept", "x"),
    ]  # fmt: skip
    assert read_headers(headers) == Impersonation("ann", "", ("a", "b"), (("scopes", "s"),))


def test_no_headers_ask_for_nothing() -> None:
    assert read_headers([("Accept", "x")]) is None


def test_group_without_user_is_a_bad_request() -> None:
    with pytest.raises(BadRequest):
        read_headers([("Impersonate-Group", "a")])


@pytest.mark.parametrize(
    ("wanted", "groups"),
    [
        pytest.param(Impersonation("ann"), ("system:authenticated",), id="user"),
        pytest.param(Impersonation("ann", "", ("dev",)), ("dev", "system:authenticated"), id="with groups"),
        pytest.param(Impersonation("system:anonymous"), ("system:unauthenticated",), id="anonymous"),
        pytest.param(
            Impersonation("system:serviceaccount:ns:bot"),
            ("system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"),
            id="service account",
        ),
    ],
)
async def test_H20_impersonated_user_has_the_groups_it_would_have(
    wanted: Impersonation, groups: tuple[str, ...]
) -> None:
    assert (await impersonate(AlwaysAllow(), CALLER, wanted)).groups == groups


async def test_every_part_must_be_allowed() -> None:
    with pytest.raises(Forbidden) as refused:
        await impersonate(Only(("users", "ann")), CALLER, Impersonation("ann", "", ("admins",)))
    assert str(refused.value) == (
        'groups "admins" is forbidden: User "boss" cannot impersonate resource "groups" in API group ""'
        " at the cluster scope"
    )


async def test_service_account_is_asked_as_one_in_its_namespace() -> None:
    only = Only(("serviceaccounts", "bot"))
    await impersonate(only, CALLER, Impersonation("system:serviceaccount:ns:bot"))
    assert [(question.resource, question.namespace, question.name) for question in only.asked] == [
        ("serviceaccounts", "ns", "bot")
    ]
