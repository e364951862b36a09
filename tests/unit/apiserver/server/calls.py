"""Calls as the doors make them, for tests of what lies behind."""

from __future__ import annotations

from tiphys_apiserver.authentication.interface import ALL_AUTHENTICATED, Credentials, UserInfo
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.server.request_info import parse


def call_of(
    user: str = "alice",
    path: str = "/api/v1/namespaces/a/pods/p",
    *groups: str,
    method: str = "GET",
    watch: bool = False,
) -> Call:
    """A request of an authenticated user."""
    call = Call(parse(method, path, watch=watch), Credentials())
    call.user = UserInfo(user, groups=(*groups, ALL_AUTHENTICATED))
    return call
