"""What happens to a pod between the choice of its node and its binding: Reserve, Permit, PreBind, Bind, PostBind.

Other pods are placed meanwhile. Each pod that is started ends exactly once, bound or with a Failure, and of one that
failed everything that was reserved for it is given back before anybody hears of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from tiphys_apimachinery.errors import APIError
from tiphys_client.client import Client
from tiphys_component.app import start_loop
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_scheduler.binder import Binder
from tiphys_scheduler.framework.interface import concerns
from tiphys_scheduler.framework.profile import Profile
from tiphys_scheduler.scheduling_queue import Waiting
from tiphys_scheduler.volume_binder import Pending, VolumeBinder
from tiphys_scheduler.volumes import Decisions, StorageInformers, Volumes

_log = get_logger("scheduler.binding")
# Source: kube-scheduler, maxTimeout of Permit.
_LONGEST_PERMIT_S = 900.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a placed pod was not bound. plugin is who refused it; error what the API server said, if it was asked."""

    message: str
    plugin: str = ""
    error: APIError | None = None


@dataclass(slots=True, eq=False)
class Placed:
    """A pod on its way to its node; awaited maps the plugins whose permission is missing to when they give up."""

    waiting: Waiting
    node: str
    profile: Profile
    decisions: Decisions | None = None
    awaited: dict[str, float] = field(default_factory=dict)
    allowed_s: dict[str, float] = field(default_factory=dict)


class BindingCycle:
    """Takes placed pods and reports each exactly once to `done`, with None where it is bound."""

    def __init__(
        self,
        client: Client,
        storage: StorageInformers,
        volumes: Volumes,
        *,
        clock: Clock,
        done: Callable[[Placed, Failure | None], None],
    ) -> None:
        self._clock = clock
        self._done = done
        self._volumes = volumes
        self._binder = Binder(client, clock=clock)
        self.volume_binder = VolumeBinder(client, storage, volumes, clock=clock, done=self._on_volumes)
        self._on_the_way: dict[str, Placed] = {}
        self._todo: deque[Placed] = deque()
        self._has_work = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            start_loop(group, self._binder.run(), "binder")
            start_loop(group, self.volume_binder.run(), "volume binder")
            start_loop(group, self._run_plugins(group), "pre-bind plugins")

    def start(self, placed: Placed) -> None:
        """Has the pod bound. It counts on its node already."""
        profile, pod = placed.profile, placed.waiting.pod
        self._on_the_way[pod.key] = placed
        if placed.decisions is None and profile.is_plain_for(pod):
            self._bind(placed)
            return
        for reserve in profile.reserves:
            if not concerns(reserve, pod):
                continue
            why = reserve.reserve(pod, placed.node)
            if why:
                self._end(placed, Failure(f'running Reserve plugin "{reserve.name}": {why}', reserve.name))
                return
        if placed.decisions is not None and placed.decisions.claims:
            self._volumes.assume(placed.decisions)
        now = self._clock.monotonic()
        for permit in profile.permits:
            permission = permit.permit(pod, placed.node)
            if permission.refusal:
                self._end(placed, Failure(permission.refusal, permit.name))
                return
            if permission.wait_s > 0:
                wait_s = min(permission.wait_s, _LONGEST_PERMIT_S)
                placed.awaited[permit.name], placed.allowed_s[permit.name] = now + wait_s, wait_s
                self._clock.call_later(wait_s, self._expire_permits)
        if not placed.awaited:
            self._prepare(placed)

    def waiting_for_permission(self) -> list[Placed]:
        """Pods that some plugin has not allowed yet."""
        return [placed for placed in self._on_the_way.values() if placed.awaited]

    def allow(self, key: str, plugin: str) -> None:
        """A plugin lets a pod go on."""
        placed = self._on_the_way.get(key)
        if placed is not None and placed.awaited.pop(plugin, None) is not None and not placed.awaited:
            self._prepare(placed)

    def reject(self, key: str, plugin: str, message: str) -> None:
        """A plugin stops a pod that waits for permission."""
        placed = self._on_the_way.get(key)
        if placed is not None and placed.awaited:
            self._end(placed, Failure(message, plugin))

    def drop(self, key: str) -> Placed | None:
        """Stop with a pod that is gone, unless its binding is being written already; what was stopped."""
        placed = self._on_the_way.get(key)
        if placed is None:
            return None
        pending = self.volume_binder.drop(key)
        if pending is None and not placed.awaited:
            return None
        self._release(placed)
        return placed

    def _prepare(self, placed: Placed) -> None:
        """Volumes first: what follows may look at them."""
        if placed.decisions is not None and placed.decisions.claims:
            self.volume_binder.add(placed.waiting, placed.decisions)
        else:
            self._to_plugins(placed)

    def _to_plugins(self, placed: Placed) -> None:
        profile, pod = placed.profile, placed.waiting.pod
        if any(concerns(plugin, pod) for plugin in profile.pre_binds) or any(p.is_mine(pod) for p in profile.binds):
            self._todo.append(placed)
            self._has_work.set()
        else:
            self._bind(placed)

    def _on_volumes(self, pending: Pending, fault: str) -> None:
        """The pod's volumes are bound, or will not be on this node."""
        placed = self._on_the_way[pending.waiting.pod.key]
        self._volumes.forget(pending.decisions)
        if fault:
            message = f'running PreBind plugin "VolumeBinding": binding volumes: {fault}'
            self._end(placed, Failure(message, "VolumeBinding"))
        else:
            self._to_plugins(placed)

    async def _run_plugins(self, group: asyncio.TaskGroup) -> None:
        """One task a pod: what a plugin waits for may take minutes."""
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            while self._todo:
                placed = self._todo.popleft()
                group.create_task(self._pre_bind(placed), name=f"pre-bind {placed.waiting.pod.key}")

    async def _pre_bind(self, placed: Placed) -> None:
        profile, pod = placed.profile, placed.waiting.pod
        step = ""
        try:
            for plugin in profile.pre_binds:
                if not concerns(plugin, pod):
                    continue
                step = f'running PreBind plugin "{plugin.name}"'
                why = await plugin.pre_bind(pod, placed.node)
                if why:
                    self._end(placed, Failure(f"{step}: {why}", plugin.name))
                    return
            for binder in profile.binds:
                if binder.is_mine(pod):
                    step = f'running Bind plugin "{binder.name}"'
                    why = await binder.bind(pod, placed.node)
                    self._end(placed, Failure(f"{step}: {why}", binder.name) if why else None)
                    return
        except Exception as err:  # a plugin is other people's code: its fault is this pod's, not the scheduler's
            _log.error("plugin failed", pod=pod.key, step=step, err=str(err), exc_info=err)
            self._end(placed, Failure(f"{step}: {err}", "", err if isinstance(err, APIError) else None))
            return
        self._bind(placed)

    def _bind(self, placed: Placed) -> None:
        self._binder.add(placed.waiting, placed.node, partial(self._on_bound, placed))

    def _on_bound(self, placed: Placed, error: APIError | None) -> None:
        self._end(placed, None if error is None else Failure(f"binding rejected: {error}", "", error))

    def _end(self, placed: Placed, failure: Failure | None) -> None:
        pod = placed.waiting.pod
        if failure is None:
            self._leave(placed)
            for plugin in placed.profile.post_binds:
                plugin.post_bind(pod, placed.node)
        else:
            self._release(placed)
        self._done(placed, failure)

    def _leave(self, placed: Placed) -> None:
        """Another pod of its name may be on its way by now."""
        key = placed.waiting.pod.key
        if self._on_the_way.get(key) is placed:
            del self._on_the_way[key]

    def _release(self, placed: Placed) -> None:
        self._leave(placed)
        if placed.decisions is not None:
            self._volumes.forget(placed.decisions)
        for plugin in reversed(placed.profile.reserves):
            plugin.unreserve(placed.waiting.pod, placed.node)

    def _expire_permits(self) -> None:
        """Stops pods that were not allowed in time."""
        now = self._clock.monotonic()
        for placed in self.waiting_for_permission():
            late = next((name for name, until_s in placed.awaited.items() if until_s <= now), None)
            if late is not None:
                waited = placed.allowed_s[late]
                message = f"rejected due to timeout after waiting {waited:g}s at plugin {late}"
                self._end(placed, Failure(message, late))
