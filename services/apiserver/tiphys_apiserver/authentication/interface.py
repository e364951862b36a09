"""What an authenticator is given and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

ANONYMOUS = "system:anonymous"
ALL_AUTHENTICATED = "system:authenticated"
ALL_UNAUTHENTICATED = "system:unauthenticated"
MASTERS = "system:masters"


@dataclass(frozen=True, slots=True)
class UserInfo:
    """Who makes a request. Groups are in the order of the credential; extra values are lists."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


ANONYMOUS_USER = UserInfo(ANONYMOUS, groups=(ALL_UNAUTHENTICATED,))
# The server's own work: bootstrap, allocators, admission. Never a caller from outside.
SERVER_USER = UserInfo("system:apiserver", groups=(MASTERS, ALL_AUTHENTICATED))


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a connection and its request show about the caller.

    peer_certificate_der is a client certificate that TLS has already verified against
    one of the authorities for clients. bearer_token is the text behind "Bearer ". headers are the
    request's, which only a front proxy is believed; a name may recur in items(). audiences is
    what a token must be meant for; empty means the server's own.
    """

    bearer_token: str = ""
    peer_certificate_der: bytes = b""
    client_address: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    audiences: tuple[str, ...] = ()


class Authenticator(Protocol):
    """Turns credentials into a user."""

    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        """The user these credentials prove, or None when they say nothing to this authenticator.

        system:authenticated is already among the groups of the answer.
        Raises tiphys_apimachinery.errors.Unauthorized when a credential of its own kind is bad:
        an expired token is refused, not taken for anonymous.
        """
        ...
