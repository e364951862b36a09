"""What the kubelet asks of the API: as much of the client as it uses, and the events that it writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)


class ApiClient(Protocol):
    """The part of tiphys_client.Client that is used here; raises errors of tiphys_apimachinery.errors."""

    async def get(self, cls: type[M], name: str, namespace: str = "") -> M:
        """One object."""

    async def create(self, obj: M) -> M:
        """A new object."""

    async def update(self, obj: M) -> M:
        """The whole object."""

    async def patch(
        self,
        cls: type[M],
        name: str,
        namespace: str,
        patch: Mapping[str, Any],
        *,
        type: Literal["json", "merge", "strategic"],
        subresource: str = "",
    ) -> M:
        """Parts of an object."""

    async def delete(
        self,
        cls: type[M],
        name: str,
        namespace: str = "",
        *,
        grace_period_s: int | None = None,
        preconditions_uid: str | None = None,
    ) -> None:
        """Deletes an object."""

    async def post(self, parent: type[Message], method: str, *, name: str, namespace: str, body: M) -> M:
        """Creates a subresource of a named object."""


class EventSink(Protocol):
    """Where events go; never waits and never raises."""

    def event(self, regarding: Message, kind: str, reason: str, message: str, *, container: str = "") -> None:
        """Tells of something; kind is Normal or Warning, container names the one concerned."""
