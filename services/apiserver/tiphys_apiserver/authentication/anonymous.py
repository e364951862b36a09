"""The user of a request that shows nothing."""

from __future__ import annotations

from tiphys_apiserver.authentication.interface import ANONYMOUS_USER, Authenticator, Credentials, UserInfo


class AnonymousFallback:
    """Takes a request without any credential for system:anonymous; a bad credential stays an error."""

    def __init__(self, inner: Authenticator) -> None:
        self.inner = inner

    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        """The inner authenticator's answer, or the anonymous user where nothing was presented."""
        user = await self.inner.authenticate(credentials)
        if user is not None:
            return user
        if credentials.bearer_token or credentials.peer_certificate_der:
            return None
        return ANONYMOUS_USER
