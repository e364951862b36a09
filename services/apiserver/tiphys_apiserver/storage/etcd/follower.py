"""One watch on etcd for a whole server: every event under the root arrives once and is handed to all watches here.

A single ordered stream also makes consistent reads cheap: what etcd has done up to a revision has nearly always
arrived by itself. Where the newest revision belongs to a key outside the root nothing arrives, and etcd is asked for
progress. Versions before 3.4.31 and 3.5.13 may answer that ahead of events still on their way (etcd issue 15220), or
not at all (17507), so there a small key of our own is written instead, whose event can't overtake anything.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import grpc

from tiphys.thirdparty.etcd import kv_pb2, rpc_pb2
from tiphys_apiserver.storage.etcd import revisions
from tiphys_apiserver.storage.etcd.connection import EtcdConnection, range_end
from tiphys_apiserver.storage.etcd.packs import DELETIONS, read_deletions
from tiphys_apiserver.storage.feed import Feed, QueuedWatch
from tiphys_apiserver.storage.interface import Compacted, Event, EventType, StorageError, StoreUnavailable
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger

if TYPE_CHECKING:
    Stream = grpc.aio.StreamStreamCall[rpc_pb2.WatchRequest, rpc_pb2.WatchResponse]

_log = get_logger(__name__)

# Events kept for watches that join: they begin at most this far back, or open a stream of their own.
_KEPT_EVENTS = 4000
_KEPT_BYTES = 16 << 20
# What is awaited usually comes by itself within this; then etcd is asked.
_PATIENCE_S = 0.01
# Between two askings of the same need, and after how many without an answer a key is written.
_ASK_AGAIN_S = 0.1
_ASKED_IN_VAIN = 5


class Follower:
    """Follows the root from one revision on. ``floor``: it can serve a watch that begins after this or later."""

    def __init__(
        self,
        connection: EtcdConnection,
        clock: Clock,
        *,
        after_revision: int,
        touch: Callable[[], Awaitable[None]],
        trusts_progress: bool,
    ) -> None:
        """``touch`` writes under the root; used where etcd's own progress answers can't be trusted or do not come."""
        self._connection = connection
        self._clock = clock
        self._touch = touch
        self._trusts_progress = trusts_progress
        self._feed = Feed(after_revision, on_waiting=self._needs_progress_now)
        self._kept: deque[Event] = deque()
        self._kept_bytes = 0
        self._needs_progress = asyncio.Event()
        self._stream: Stream | None = None
        self.floor = after_revision
        self.is_over = False
        self.watches = 0

    def open(self, prefix: str, after_revision: int) -> QueuedWatch:
        """A watch on a prefix under the root, from the floor or later."""
        watch = self._feed.open(prefix, after_revision)
        self.watches += 1
        watch.open_gate(
            [event for event in self._kept if event.mod_revision > after_revision and event.key.startswith(prefix)]
        )
        return watch

    def forget(self, watch: QueuedWatch) -> None:
        """Stop feeding a watch."""
        self._feed.forget(watch)
        self.watches -= 1

    async def run(self) -> None:
        """Follow until cancelled, or until etcd has forgotten what comes next; connections are made anew."""
        backoff = Backoff(base_s=0.05, cap_s=2.0)
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(self._ask_for_progress(), name="etcd-progress")
            while not self.is_over:
                member = self._connection.member
                try:
                    await self._follow_once(backoff)
                except (grpc.aio.AioRpcError, StoreUnavailable) as err:
                    _log.warning("etcd watch broke, connecting again", etcd=member.endpoint, err=_text(err))
                    self._connection.fail_over(member)
                if not self.is_over:
                    await self._clock.sleep(backoff.next())
            asking.cancel()

    async def _follow_once(self, backoff: Backoff) -> None:
        root = self._connection.options.root
        # The requests are written one by one as need be; grpc-stubs knows only of an iterator of them.
        stream = self._connection.member.watch.Watch()  # type: ignore[call-arg]
        try:
            request = rpc_pb2.WatchCreateRequest(
                key=root.encode(),
                range_end=range_end(root),
                start_revision=await self._first_to_follow(),
                progress_notify=self._trusts_progress,
            )
            await stream.write(rpc_pb2.WatchRequest(create_request=request))
            async for answer in stream:
                if answer.created:
                    if await self._is_compacted(request.start_revision - 1):
                        self.end(Compacted(0))
                        return
                    backoff.reset()
                    self._stream = stream
                    if self._feed.has_waiting:
                        self._needs_progress.set()
                if not self._take(answer):
                    return
        finally:
            self._stream = None
            stream.cancel()

    async def _first_to_follow(self) -> int:
        """The transaction to begin with.

        Where the watch begins amid one that is the last to be compacted, etcd does not tell its events any more: what
        is left of it stands in the state that it made.
        """
        begun = self._feed.revision
        first = revisions.first_after(begun)
        if revisions.is_whole(begun) or not await self._is_compacted(first - 1):
            return first
        if await self._is_compacted(first):
            return first
        events = await self._made_at(first)
        self._keep([event for event in events if event.mod_revision > begun])
        self._feed.publish(events, revisions.of_state(first))
        return first + 1

    async def _made_at(self, etcd_revision: int) -> list[Event]:
        """What a transaction did, by the state just after it; those deleted are named there too."""
        root, timeout_s = self._connection.options.root, self._connection.options.call_timeout_s
        request = rpc_pb2.RangeRequest(
            key=root.encode(),
            range_end=range_end(root),
            revision=etcd_revision,
            min_mod_revision=etcd_revision,
            max_mod_revision=etcd_revision,
        )
        answer = await self._connection.read(lambda member: member.kv.Range(request, timeout=timeout_s))
        put = kv_pb2.Event.PUT
        events = [_event(kv_pb2.Event(type=put, kv=kv), revisions.opened(kv.value)[1]) for kv in answer.kvs]
        deleted = [read_deletions(event.value) for event in events if event.key == root + DELETIONS]
        for key, place in (named for names in deleted for named in names.items()):
            events.append(Event(EventType.DELETE, key, b"", revisions.of_change(etcd_revision, place)))
        return sorted(events, key=_revision)

    async def _is_compacted(self, revision: int) -> bool:
        """Whether events of transactions after one may be missing.

        etcd refuses a watch only if its first revision is below the compacted one, and at that one deletions may be
        gone already; a read at the revision before is refused in both cases.
        """
        timeout_s = self._connection.options.call_timeout_s
        request = rpc_pb2.RangeRequest(key=b"\0", count_only=True, revision=max(1, revision))
        try:
            await self._connection.read(lambda member: member.kv.Range(request, timeout=timeout_s))
        except grpc.aio.AioRpcError:
            request.revision = 0
            now = await self._connection.read(lambda member: member.kv.Range(request, timeout=timeout_s))
            # The other reason to refuse is that the revision is still to come.
            return revision <= now.header.revision
        return False

    def _take(self, answer: rpc_pb2.WatchResponse) -> bool:
        """Take one answer in; False when the stream is of no more use."""
        if answer.canceled:
            if answer.compact_revision:
                self.end(Compacted(answer.compact_revision))
            else:
                _log.warning("etcd ended the watch, beginning anew", err=answer.cancel_reason)
            return False
        if answer.events:
            places = revisions.places(event.kv.mod_revision for event in answer.events)
            events = [_event(event, place) for event, place in zip(answer.events, places, strict=True)]
            self._keep(events)
            self._feed.publish(events, revisions.of_state(answer.events[-1].kv.mod_revision))
        elif not answer.created and self._trusts_progress:
            self._feed.publish((), revisions.of_state(answer.header.revision))
        return True

    def _keep(self, events: Sequence[Event]) -> None:
        self._kept.extend(events)
        self._kept_bytes += sum(len(event.value) for event in events)
        while len(self._kept) > _KEPT_EVENTS or (self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1):
            oldest = self._kept.popleft()
            self._kept_bytes -= len(oldest.value)
            self.floor = oldest.mod_revision

    def end(self, reason: StorageError) -> None:
        """End all watches; the follower is of no more use."""
        self.is_over = True
        self._feed.end_all(reason)

    def _needs_progress_now(self) -> None:
        self._needs_progress.set()

    async def _ask_for_progress(self) -> None:
        while True:
            await self._needs_progress.wait()
            await self._clock.sleep(_PATIENCE_S)
            asked = 0
            while self._feed.has_waiting:
                await self._ask_once(by_touch=not self._trusts_progress or asked >= _ASKED_IN_VAIN)
                asked += 1
                await self._clock.sleep(_ASK_AGAIN_S)
            self._needs_progress.clear()

    async def _ask_once(self, *, by_touch: bool) -> None:
        try:
            if by_touch:
                await self._touch()
            elif self._stream is not None:
                await self._stream.write(rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest()))
        except (StorageError, grpc.RpcError, asyncio.InvalidStateError) as err:
            # The stream is being made anew, and whoever waits has a time limit of its own.
            _log.debug("etcd could not be asked for progress", err=str(err))


def _event(event: kv_pb2.Event, place: int) -> Event:
    kv = event.kv
    kind = EventType.DELETE if event.type == kv_pb2.Event.DELETE else EventType.PUT
    return Event(kind, kv.key.decode(), revisions.opened(kv.value)[0], revisions.of_change(kv.mod_revision, place))


def _revision(event: Event) -> int:
    return event.mod_revision


def _text(err: grpc.aio.AioRpcError | StoreUnavailable) -> str:
    return str(err.details()) if isinstance(err, grpc.aio.AioRpcError) else str(err)
