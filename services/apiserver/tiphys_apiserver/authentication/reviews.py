"""TokenReview and SelfSubjectReview: questions about identity that are answered and never stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tiphys.api.authentication.v1.authentication_pb2 import SelfSubjectReview, TokenReview
from tiphys_apimachinery.errors import BadRequest, Unauthorized
from tiphys_apimachinery.meta import to_time
from tiphys_apiserver.authentication.interface import Authenticator, Credentials, UserInfo
from tiphys_component.clock import Clock


def fill_user(target: Any, user: UserInfo) -> None:
    """Write a user into a UserInfo message of authentication.k8s.io."""
    target.username = user.name
    target.uid = user.uid
    target.groups.extend(user.groups)
    for key, values in user.extra.items():
        target.extra[key].items.extend(values)


class TokenReviews:
    """Says whose a token is. Which audiences it is meant for is found by asking for each."""

    def __init__(self, authenticator: Authenticator, api_audiences: Sequence[str]) -> None:
        self._authenticator = authenticator
        self._api_audiences = tuple(api_audiences)

    async def create(self, user: UserInfo, obj: TokenReview, *, namespace: str = "", name: str = "") -> TokenReview:
        """The review with its status. Raises BadRequest where there is no token."""
        if not obj.spec.token:
            raise BadRequest("token is required for TokenReview in authentication")
        answer = TokenReview()
        answer.CopyFrom(obj)
        answer.ClearField("status")
        wanted = tuple(obj.spec.audiences) or self._api_audiences
        found: UserInfo | None = None
        meant_for = []
        refusal = ""
        for audience in wanted:
            # A static token has no audience and counts for the server's own only.
            audiences = () if audience in self._api_audiences else (audience,)
            try:
                answered = await self._authenticator.authenticate(Credentials(obj.spec.token, audiences=audiences))
            except Unauthorized as err:
                refusal = refusal or f"[invalid bearer token, {err.message}]"
                continue
            if answered is not None:
                found = answered
                meant_for.append(audience)
        if found is None:
            answer.status.SetInParent()
            answer.status.user.SetInParent()
            if refusal:
                answer.status.error = refusal
            return answer
        answer.status.authenticated = True
        answer.status.audiences.extend(meant_for)
        fill_user(answer.status.user, found)
        return answer


class SelfSubjectReviews:
    """Tells callers who they are."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def create(
        self, user: UserInfo, obj: SelfSubjectReview, *, namespace: str = "", name: str = ""
    ) -> SelfSubjectReview:
        """The review with the caller in its status."""
        answer = SelfSubjectReview()
        answer.metadata.creationTimestamp.CopyFrom(to_time(self._clock.now()))
        fill_user(answer.status.userInfo, user)
        return answer
