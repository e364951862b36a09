"""Flow control by FlowSchema and PriorityLevelConfiguration, as they are in the cluster at the moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tiphys.api.flowcontrol.v1.flowcontrol_pb2 import FlowSchema, PriorityLevelConfiguration
from tiphys_apimachinery.errors import APIError, TooManyRequests
from tiphys_apiserver.bootstrap.flow_control import MANDATORY_LEVELS, MANDATORY_SCHEMAS
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.server.flow_control.metrics import FlowMetrics
from tiphys_apiserver.server.flow_control.schemas import Flow, compile_schema, level_settings
from tiphys_apiserver.server.flow_control.seats import Level, LevelSettings, Pool, QueueFull
from tiphys_apiserver.server.flow_control.work import CountObjects, Turnstile, seats_of
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger

_log = get_logger(__name__)

RETRY_AFTER_S = 1
# Longest time in a queue. Source: kube-apiserver, a quarter of --request-timeout.
WAIT_LIMIT_S = 15.0
# Kinds of callers and questions whose flow is remembered.
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Held:
    """Seats of a level that a request holds."""

    level: Level
    width: int

    def release(self) -> None:
        """Give them back."""
        self.level.release(self.width)


class PriorityAndFairness:
    """Implements FlowControl. total is the seats of the whole server, shared out among the levels by their shares."""

    def __init__(
        self,
        total: int,
        objects: ObjectAccess,
        clock: Clock,
        *,
        count: CountObjects,
        metrics: FlowMetrics,
        wait_limit_s: float = WAIT_LIMIT_S,
    ) -> None:
        self._total = total
        self._objects = objects
        self._clock = clock
        self._count = count
        self._metrics = metrics
        self._wait_limit_s = wait_limit_s
        self._pool = Pool()
        self._turnstile = Turnstile()
        self.levels: dict[str, Level] = {}
        # Levels that were deleted under requests.
        self._retired: list[Level] = []
        self._flows: list[Flow] = []
        self._versions = (0, 0)
        self._memory: dict[tuple[object, ...], Flow] = {}
        self._single: dict[Level, Held] = {}
        metrics.read_from(self)
        self._configure([], [])

    @property
    def flows(self) -> Sequence[Flow]:
        """The schemas in use, in the order in which they are asked."""
        return self._flows

    async def enter(self, call: Call) -> None:
        """Return when the request has its seats. Raises TooManyRequests where it can't have them in time."""
        if call.lasts and call.info.verb != "watch":
            return
        if (self._objects.version(PriorityLevelConfiguration), self._objects.version(FlowSchema)) != self._versions:
            await self._refresh()
        flow = self._classify(call)
        call.flow_headers = flow.headers
        level = flow.level
        width = seats_of(call, self._count)
        if width > 1:
            width = level.fitting(width)
        if not level.try_take(width):
            await self._wait(call, flow, width)
        flow.dispatched += 1
        held = self._single[level] if width == 1 and level in self._single else Held(level, width)
        if width > 1 and not level.settings.exempt:
            try:
                await self._turnstile.pass_through()
            except BaseException:
                held.release()
                raise
        call.seat = held

    def _classify(self, call: Call) -> Flow:
        info, user = call.info, call.user
        key: tuple[object, ...]
        if info.is_resource_request:
            key = (user.name, user.groups, info.verb, info.api_group, info.resource, info.subresource, info.namespace)
        else:
            key = (user.name, user.groups, info.verb, info.path)
        flow = self._memory.get(key)
        if flow is None:
            if len(self._memory) >= _REMEMBERED:
                self._memory.clear()
            # Somebody in none of the two groups that everybody is in still has the last schema.
            flow = next((one for one in self._flows if one.match(user, info)), self._flows[-1])
            self._memory[key] = flow
        return flow

    async def _wait(self, call: Call, flow: Flow, width: int) -> None:
        level = flow.level
        began = self._clock.monotonic()
        try:
            waiter = level.enqueue(flow.key(call.user, call.info), width)
        except QueueFull:
            reason = "queue-full" if level.settings.queues else "concurrency-limit"
            raise self._refuse(flow, reason) from None
        try:
            async with asyncio.timeout(self._wait_limit_s):
                await waiter.admitted
        except TimeoutError:
            level.withdraw(waiter)
            self._metrics.waited(flow, self._clock.monotonic() - began, executed=False)
            raise self._refuse(flow, "time-out") from None
        except BaseException:
            level.withdraw(waiter)
            raise
        self._metrics.waited(flow, self._clock.monotonic() - began, executed=True)

    def _refuse(self, flow: Flow, reason: str) -> TooManyRequests:
        self._metrics.rejected(flow, reason)
        return TooManyRequests.of("Too many requests, please try again later.", RETRY_AFTER_S)

    # -- configuration

    async def _refresh(self) -> None:
        """Take in the objects as they are now; those in use stay where they can't be read."""
        versions = (self._objects.version(PriorityLevelConfiguration), self._objects.version(FlowSchema))
        if 0 in versions:
            # A cache is not filled: what is in use goes on.
            return
        try:
            levels = await self._objects.list(PriorityLevelConfiguration)
            schemas = await self._objects.list(FlowSchema)
        except APIError as err:
            _log.warning("flow control keeps its last configuration", err=str(err))
            return
        self._versions = versions
        self._configure(levels, schemas)

    def _configure(self, levels: Sequence[Any], schemas: Sequence[Any]) -> None:
        """Use these objects, and the mandatory ones where they are missing."""
        wanted = {item.metadata.name: level_settings(item) for item in (*MANDATORY_LEVELS, *levels)}
        self._retire([level for name, level in self.levels.items() if name not in wanted])
        self.levels = {name: self._level(name, settings) for name, settings in wanted.items()}
        pairs = [(level, wanted[name]) for name, level in self.levels.items()]
        self._pool.share_out(pairs, self._retired, self._total)
        counts = {flow.name: flow.dispatched for flow in self._flows}
        given = {item.metadata.name: item for item in (*MANDATORY_SCHEMAS, *schemas)}
        flows = []
        for item in given.values():
            level = self.levels.get(item.spec.priorityLevelConfiguration.name)
            if level is not None:
                flow = compile_schema(item, level)
                flow.dispatched = counts.get(flow.name, 0)
                flows.append(flow)
        # Source: FlowSchemas of one precedence are ordered by name.
        self._flows = sorted(flows, key=lambda flow: (flow.precedence, flow.name))
        self._memory.clear()
        self._single = {level: Held(level, 1) for level in self.levels.values()}
        self._pool.admit_waiting()

    def _level(self, name: str, settings: LevelSettings) -> Level:
        return self.levels.get(name) or Level(settings, self._pool)

    def _retire(self, gone: Sequence[Level]) -> None:
        self._retired = [level for level in (*self._retired, *gone) if level.requests or level.waiting]
