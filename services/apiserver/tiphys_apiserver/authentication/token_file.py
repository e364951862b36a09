"""Static bearer tokens from a file of lines: token,user,uid[,"group1,group2"]."""

from __future__ import annotations

import csv
import hashlib

from tiphys_apiserver.authentication.interface import Credentials, UserInfo
from tiphys_apiserver.authentication.union import authenticated


class TokenFileError(ValueError):
    """The token file is malformed; the message names the line."""


class TokenFileAuthenticator:
    """Knows the tokens of --token-auth-file. They hold until the server is restarted with another file."""

    def __init__(self, text: str) -> None:
        # Keyed by digest: looking up the token itself would tell by its time how much of it was right.
        self._users: dict[bytes, UserInfo] = {}
        for number, row in enumerate(csv.reader(text.splitlines(), skipinitialspace=True), start=1):
            if not row or row[0].startswith("#"):
                continue
            if len(row) < 3:
                raise TokenFileError(f"token file line {number}: wanted token,user,uid, got {len(row)} columns")
            token, name, uid = (column.strip() for column in row[:3])
            if not token or not name:
                raise TokenFileError(f"token file line {number}: token and user must not be empty")
            groups = tuple(group.strip() for group in row[3].split(",") if group.strip()) if len(row) > 3 else ()
            self._users[_digest(token)] = authenticated(name, groups, uid=uid)

    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        """The token's user; None where the file does not know it, as it may be of another kind."""
        if not credentials.bearer_token or credentials.audiences:
            return None
        return self._users.get(_digest(credentials.bearer_token))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
