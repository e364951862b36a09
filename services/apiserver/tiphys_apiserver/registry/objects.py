"""How admission, strategies, bootstrap and authorizers reach other objects of the same server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)
P = TypeVar("P")


class ObjectAccess(Protocol):
    """Reads from the watch caches, writes through the registry.

    Messages handed out by the reading calls are private copies: the caller may keep and change
    them. Writes run defaults, strategy and validation as the server's own user, but neither
    authorization nor admission. namespace is "" for cluster-scoped kinds.
    """

    def get_nowait(self, cls: type[M], name: str, namespace: str = "") -> M | None:
        """The cached object, or None where it is absent or its cache is not filled yet."""
        ...

    async def get(self, cls: type[M], name: str, namespace: str = "") -> M:
        """The cached object, after the cache is filled. Raises NotFound."""
        ...

    async def list(
        self,
        cls: type[M],
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> list[M]:
        """The cached objects in key order; namespace "" means all."""
        ...

    async def project(
        self, cls: type[M], make: Callable[[M], P], memory: dict[str, tuple[int, P]], *, field_selector: str = ""
    ) -> Sequence[P]:
        """What make makes of each cached object, in key order.

        memory is the caller's, kept from call to call: only objects that changed since are parsed and made
        anew, and those that are gone are forgotten. make gets an object that it must not keep.
        """
        ...

    def version(self, cls: type[Message]) -> int:
        """A number that grows with every change of the kind's cache; 0 before it is filled.

        For memories derived from a kind (RBAC rules): keep them while the number stays.
        """
        ...

    async def create(self, obj: M) -> M:
        """Store a new object; the answer has uid and resourceVersion. Raises AlreadyExists, Invalid."""
        ...

    async def modify(
        self,
        cls: type[M],
        name: str,
        namespace: str,
        change: Callable[[M], None],
        *,
        subresource: str = "",
    ) -> M:
        """Read, change in place, write; again on conflict. Nothing is written if nothing changed.

        Raises NotFound, Invalid, and whatever change raises.
        """
        ...

    async def delete(self, cls: type[Message], name: str, namespace: str = "") -> None:
        """Delete in the background propagation; deleting what is gone succeeds."""
        ...
