"""Who asks, told to another API server in headers that it believes because of this server's client certificate."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from tiphys_apiserver.authentication.interface import ALL_AUTHENTICATED, MASTERS, UserInfo

# This server on its own account, asking what there is and whether it answers.
AGGREGATOR = UserInfo("system:kube-aggregator", groups=(MASTERS, ALL_AUTHENTICATED))

USER_HEADER = "X-Remote-User"
UID_HEADER = "X-Remote-Uid"
GROUP_HEADER = "X-Remote-Group"
EXTRA_PREFIX = "X-Remote-Extra-"


def identity_headers(user: UserInfo) -> tuple[tuple[str, str], ...]:
    """The user in the front proxy's headers."""
    return tuple(_headers(user))


def _headers(user: UserInfo) -> Iterator[tuple[str, str]]:
    yield USER_HEADER, _safe(user.name)
    if user.uid:
        yield UID_HEADER, _safe(user.uid)
    for group in user.groups:
        yield GROUP_HEADER, _safe(group)
    for key, values in user.extra.items():
        for value in values:
            # A key may hold what a header's name may not.
            yield EXTRA_PREFIX + quote(key.lower(), safe=""), _safe(value)


def _safe(value: str) -> str:
    """Without what would end a header: a name from a certificate may hold anything."""
    return value.replace("\r", " ").replace("\n", " ")
