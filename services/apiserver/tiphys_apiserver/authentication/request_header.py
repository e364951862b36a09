"""The front proxy: a client that may say in headers for whom it asks, trusted by an authority of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from tiphys_apimachinery.errors import Unauthorized
from tiphys_apiserver.authentication.interface import Authenticator, Credentials, UserInfo
from tiphys_apiserver.authentication.union import authenticated


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """Names of the headers, in lower case; the first that is there counts, of groups all."""

    user: tuple[str, ...] = ("x-remote-user",)
    uid: tuple[str, ...] = ()
    groups: tuple[str, ...] = ("x-remote-group",)
    extra_prefixes: tuple[str, ...] = ("x-remote-extra-",)


class RequestHeaderAuthenticator:
    """Believes the headers of clients whose certificate the proxies' authority signed, for one of the allowed names."""

    def __init__(self, proxies: Authenticator, allowed_names: tuple[str, ...], headers: RequestHeaders) -> None:
        self._proxies = proxies
        self._allowed = frozenset(allowed_names)
        self._headers = headers

    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        """The user in the headers; None where no header names one, or the client is no front proxy."""
        given = _values(credentials.headers)
        name = _first(given, self._headers.user)
        if not name or not credentials.peer_certificate_der:
            return None
        try:
            proxy = await self._proxies.authenticate(credentials)
        except Unauthorized:
            # An ordinary client that sends such a header is asked by the others who it is.
            return None
        if proxy is None or (self._allowed and proxy.name not in self._allowed):
            return None
        groups = tuple(value for header in self._headers.groups for value in given.get(header, ()) if value)
        extra: dict[str, tuple[str, ...]] = {}
        for header, values in given.items():
            for prefix in self._headers.extra_prefixes:
                if header.startswith(prefix):
                    key = unquote(header.removeprefix(prefix))
                    extra[key] = (*extra.get(key, ()), *values)
        return authenticated(name, groups, uid=_first(given, self._headers.uid), extra=extra)


def _values(headers: Mapping[str, Any]) -> dict[str, list[str]]:
    """All values by lower-case name. headers may hold a name more than once, as those of HTTP do."""
    found: dict[str, list[str]] = {}
    for name, value in headers.items():
        found.setdefault(name.lower(), []).append(value)
    return found


def _first(given: Mapping[str, list[str]], names: tuple[str, ...]) -> str:
    return next((value for name in names for value in given.get(name, ()) if value), "")
