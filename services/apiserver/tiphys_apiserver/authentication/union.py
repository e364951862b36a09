"""Asks several authenticators in order."""

from __future__ import annotations

from collections.abc import Mapping

from tiphys_apimachinery.errors import Unauthorized
from tiphys_apiserver.authentication.interface import ALL_AUTHENTICATED, Authenticator, Credentials, UserInfo


class UnionAuthenticator:
    """The first user found wins. If none is found and one of them called its credential bad, so does the union."""

    def __init__(self, *authenticators: Authenticator) -> None:
        self._authenticators = authenticators

    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        """Ask each in order; raises Unauthorized where a credential was presented and nobody takes it."""
        refused: Unauthorized | None = None
        for authenticator in self._authenticators:
            try:
                user = await authenticator.authenticate(credentials)
            except Unauthorized as err:
                refused = refused or err
                continue
            if user is not None:
                return user
        if refused is not None:
            raise refused
        if credentials.bearer_token:
            raise Unauthorized.of()
        return None


def authenticated(
    name: str, groups: tuple[str, ...], *, uid: str = "", extra: Mapping[str, tuple[str, ...]] | None = None
) -> UserInfo:
    """A user with system:authenticated among its groups."""
    if ALL_AUTHENTICATED not in groups:
        groups = (*groups, ALL_AUTHENTICATED)
    return UserInfo(name, uid, groups, extra or {})
