"""Mirrors a resource into a sink: list once, then watch from there, for ever.

What the sink may rely on: replace() comes first, with a whole state; then apply() with every change after it, once
and in order. When the server no longer knows the changes since (410), or refuses the watch for another reason than a
lost connection, a new replace() comes, and between the two states changes may have been skipped. A lost connection is
resumed exactly where it broke.
"""

from __future__ import annotations

import random
from contextlib import aclosing
from typing import Any, Generic, NoReturn, Protocol, TypeVar, cast

from google.protobuf.message import Message

from tiphys_apimachinery.errors import APIError, Expired, Gone, InternalError, Timeout
from tiphys_client.client import Client, EventType, WatchEvent
from tiphys_client.resource_facts import facts_of
from tiphys_client.transport import is_retriable
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger

MessageT = TypeVar("MessageT", bound=Message)

# Source: client-go tools/cache/reflector.go: 800 ms doubled up to 30 s, jittered. Ours starts lower, because a
# restarted API server is back within a second.
BACKOFF_BASE_S = 0.1
BACKOFF_CAP_S = 30.0
# Bounds what one reply holds; all pages together are one state of one revision.
PAGE_SIZE = 10_000
# A watch that ends sooner and brought nothing is a failure, or a broken server would be asked in a busy loop.
SHORT_WATCH_S = 1.0


class Sink(Protocol):
    """Takes the mirrored state. An error it raises ends the reflector."""

    async def replace(self, items: list[bytes]) -> None:
        """This is the whole state now."""
        ...

    def apply(self, event: WatchEvent[Any]) -> None:
        """One change after the state; never a bookmark."""
        ...


class Reflector(Generic[MessageT]):
    """Keeps one sink true to one resource. run() works until cancelled and heals every error of the API by itself."""

    def __init__(
        self,
        client: Client,
        cls: type[MessageT],
        sink: Sink,
        *,
        clock: Clock,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        page_size: int = PAGE_SIZE,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._cls = cls
        self._sink = sink
        self._clock = clock
        self._scope: dict[str, Any] = {
            "namespace": namespace,
            "label_selector": label_selector,
            "field_selector": field_selector,
        }
        self._page_size = page_size
        self._backoff = Backoff(BACKOFF_BASE_S, BACKOFF_CAP_S, jitter=1.0, rng=rng)
        self._log = get_logger("reflector", kind=cls.DESCRIPTOR.name)
        # What the next list must not be older than; empty stands for the newest state. Nothing less will do for the
        # first: a process that comes back must not see the time before its own last writes, which it has forgotten.
        self._list_from = ""
        self.resource_version = ""
        """The version up to which the sink has seen everything; empty before the first list."""
        self.lists = 0
        """How many lists have been taken over."""
        self.watches = 0
        """How many watches have been opened."""

    async def run(self) -> NoReturn:
        """List and watch until cancelled. Raises only what the sink raises."""
        facts_of(self._cls)
        while True:
            try:
                await self._list()
            except APIError as err:
                if isinstance(err, Expired | Gone | Timeout):
                    # The version asked for, or the token of a page, is not to be had from this server.
                    self._list_from = ""
                await self._pause("list failed", err)
                continue
            await self._follow()

    async def _list(self) -> None:
        items: list[bytes] = []
        token, version = "", ""
        while True:
            page = await self._client.list(
                self._cls,
                **self._scope,
                resource_version="" if token else self._list_from,
                limit=self._page_size,
                continue_token=token,
            )
            items += page.raw_items
            version = page.resource_version
            token = page.continue_token
            if not token:
                break
        await self._sink.replace(items)
        self.lists += 1
        self.resource_version = self._list_from = version
        self._log.debug("listed", count=len(items), rv=version)

    async def _follow(self) -> None:
        """Watch, again and again, until a new list is needed."""
        while True:
            started, before = self._clock.monotonic(), self.resource_version
            try:
                await self._watch()
                if self._clock.monotonic() - started < SHORT_WATCH_S and self.resource_version == before:
                    await self._pause("watch ended at once", None)
            except (Expired, Gone, Timeout) as err:
                # A Timeout says that the server is behind the version asked for, as one restored from a backup is.
                self._list_from = ""
                await self._pause("history is not to be had, list again", err)
                return
            except APIError as err:
                await self._pause("watch broken", err)
                if not (is_retriable(err) or isinstance(err, InternalError)):
                    return

    async def _watch(self) -> None:
        self.watches += 1
        stream = self._client.watch(self._cls, **self._scope, resource_version=self.resource_version)
        async with aclosing(stream) as batches:
            async for batch in batches:
                for event in batch:
                    if event.type is not EventType.BOOKMARK:
                        self._sink.apply(event)
                    # Taken over one by one: a stream that breaks within a batch resumes behind what was applied.
                    self.resource_version = cast(Any, event.object).metadata.resourceVersion
                self._list_from = self.resource_version
                self._backoff.reset()

    async def _pause(self, why: str, err: APIError | None) -> None:
        delay = self._backoff.next()
        if err is not None and err.retry_after_s:
            delay = max(delay, float(err.retry_after_s))
        values = {"err": str(err), "code": err.code} if err is not None else {}
        quiet = self._backoff.failures <= 2 and (err is None or is_retriable(err) or isinstance(err, Expired | Gone))
        (self._log.debug if quiet else self._log.warning)(why, retry_s=round(delay, 3), **values)
        await self._clock.sleep(delay)
