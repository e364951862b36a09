"""A client whose server is in memory: what controllers are tested with."""

from __future__ import annotations

import random
from typing import Any, TypeVar

from google.protobuf.message import Message

from tiphys_client.client import Client
from tiphys_client.fake_server import Call, FakeServer, not_found
from tiphys_client.transport import READ_METHODS, InProcessTransport
from tiphys_component.clock import Clock, FakeClock

__all__ = ["Call", "FakeClient", "FakeServer"]

MessageT = TypeVar("MessageT", bound=Message)


class FakeClient(Client):
    """A Client on a FakeServer of its own, or on a server that several clients share.

    client = FakeClient(clock)
    client.seed(pod)
    client.server.fail("UpdateStatus", Pod, Conflict("stale"))
    ...
    assert client.writes() == [Call("Delete", "Pod", "default", "web-1")]
    """

    def __init__(
        self, clock: Clock | None = None, *, server: FakeServer | None = None, rng: random.Random | None = None
    ) -> None:
        self.server = server or FakeServer(clock or FakeClock(), rng)
        super().__init__(InProcessTransport(self.server))

    def seed(self, *objs: Any) -> list[Any]:
        """Store objects as they are, status included, and return them; not counted among the calls."""
        return self.server.seed(*objs)

    def stored(self, cls: type[MessageT], name: str, namespace: str = "") -> MessageT:
        """The object as it is stored; not counted among the calls. Raises NotFound where there is none."""
        found = self.find_stored(cls, name, namespace)
        if found is None:
            raise not_found(cls, name)
        return found

    def find_stored(self, cls: type[MessageT], name: str, namespace: str = "") -> MessageT | None:
        """The object as it is stored, or None; not counted among the calls."""
        return self.server.store.get(cls, namespace, name)

    def writes(self) -> list[Call]:
        """The calls so far that may have changed something, in order."""
        return [call for call in self.server.calls if call.method not in READ_METHODS]
