"""Acting as another user: Impersonate-User, -Group, -Uid and -Extra-… headers, each to be allowed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from tiphys_apimachinery.errors import BadRequest
from tiphys_apiserver.authentication.interface import (
    ALL_AUTHENTICATED,
    ALL_UNAUTHENTICATED,
    ANONYMOUS,
    UserInfo,
)
from tiphys_apiserver.authorization.forbidden import forbidden
from tiphys_apiserver.authorization.interface import Attributes, Authorizer
from tiphys_apiserver.authorization.policy_index import SERVICE_ACCOUNT_PREFIX

USER_HEADER = "impersonate-user"
GROUP_HEADER = "impersonate-group"
UID_HEADER = "impersonate-uid"
EXTRA_PREFIX = "impersonate-extra-"
_AUTHENTICATION_GROUP = "authentication.k8s.io"


@dataclass(frozen=True, slots=True)
class Impersonation:
    """Whom a request wants to be."""

    user: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, str], ...] = ()


def read_headers(headers: Iterable[tuple[str, str]]) -> Impersonation | None:
    """What the headers ask for, None where they ask for nothing. Names may be in any case.

    Raises BadRequest where groups, uid or extra come without a user.
    """
    user, uid = "", ""
    groups: list[str] = []
    extra: list[tuple[str, str]] = []
    for name, value in headers:
        lower = name.lower()
        if not lower.startswith("impersonate-"):
            continue
        if lower == USER_HEADER:
            user = value
        elif lower == UID_HEADER:
            uid = value
        elif lower == GROUP_HEADER:
            groups.append(value)
        elif lower.startswith(EXTRA_PREFIX):
            extra.append((unquote(lower.removeprefix(EXTRA_PREFIX)), value))
    if not user:
        if groups or uid or extra:
            raise BadRequest("requested impersonation without impersonating a user: Impersonate-User is missing")
        return None
    return Impersonation(user, uid, tuple(groups), tuple(extra))


async def impersonate(authorizer: Authorizer, caller: UserInfo, wanted: Impersonation) -> UserInfo:
    """The user to go on as. Raises Forbidden where the caller may not be one of the parts of it."""
    for question in _questions(caller, wanted):
        decision = await authorizer.authorize(question)
        if not decision.allowed:
            raise forbidden(question, decision.reason)
    groups = list(wanted.groups)
    if wanted.user.startswith(SERVICE_ACCOUNT_PREFIX) and not groups:
        namespace = wanted.user.removeprefix(SERVICE_ACCOUNT_PREFIX).partition(":")[0]
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
    marks = (ALL_AUTHENTICATED, ALL_UNAUTHENTICATED)
    if wanted.user == ANONYMOUS:
        if not any(group in marks for group in groups):
            groups.append(ALL_UNAUTHENTICATED)
    elif not any(group in marks for group in groups):
        groups.append(ALL_AUTHENTICATED)
    extra: dict[str, tuple[str, ...]] = {}
    for key, value in wanted.extra:
        extra[key] = (*extra.get(key, ()), value)
    return UserInfo(wanted.user, wanted.uid, tuple(groups), extra)


def _questions(caller: UserInfo, wanted: Impersonation) -> Iterator[Attributes]:
    if wanted.user.startswith(SERVICE_ACCOUNT_PREFIX):
        namespace, _, name = wanted.user.removeprefix(SERVICE_ACCOUNT_PREFIX).partition(":")
        yield _ask(caller, "serviceaccounts", name, namespace=namespace)
    else:
        yield _ask(caller, "users", wanted.user)
    for group in wanted.groups:
        yield _ask(caller, "groups", group)
    if wanted.uid:
        yield _ask(caller, "uids", wanted.uid, group=_AUTHENTICATION_GROUP)
    for key, value in wanted.extra:
        yield _ask(caller, "userextras", value, group=_AUTHENTICATION_GROUP, subresource=key)


def _ask(
    caller: UserInfo, resource: str, name: str, *, namespace: str = "", group: str = "", subresource: str = ""
) -> Attributes:
    return Attributes(
        caller,
        "impersonate",
        True,
        api_group=group,
        api_version="v1",
        resource=resource,
        subresource=subresource,
        namespace=namespace,
        name=name,
    )
