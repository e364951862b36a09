"""The cycle: pop a pod, place it on the columns, assume it there, hand it to the binder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Protocol

from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.policy.v1.policy_pb2 import PodDisruptionBudget
from tiphys_apimachinery.errors import NotFound
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_component.app import start_loop
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.metrics import Registry
from tiphys_scheduler.binding_cycle import BindingCycle, Failure, Placed
from tiphys_scheduler.budgets import Budgets, BudgetView, follow_budgets
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.configuration.model import Configuration, ProfileConfig
from tiphys_scheduler.configuration.reader import ConfigurationError
from tiphys_scheduler.dynamic_resources.support import DeviceSupport
from tiphys_scheduler.framework.configured import configured
from tiphys_scheduler.framework.interface import Change, Event, FilterPlugin, PostFilterResult, ScorePlugin
from tiphys_scheduler.framework.profile import Profile
from tiphys_scheduler.framework.registry import profile
from tiphys_scheduler.framework.remote import RemoteError, RemotePlugin
from tiphys_scheduler.framework.runtime import Framework, Placement
from tiphys_scheduler.framework.status import FitError
from tiphys_scheduler.nominations import Nominations
from tiphys_scheduler.plugins.added_affinity import AddedAffinity
from tiphys_scheduler.plugins.default_preemption import DefaultPreemption
from tiphys_scheduler.plugins.extender import Extender, ExtenderError, Nominees, ask
from tiphys_scheduler.plugins.measured_use import GROUP as SPARE_GROUP
from tiphys_scheduler.plugins.measured_use import Measure, MeasuredUse
from tiphys_scheduler.plugins.node_label import NodeLabel
from tiphys_scheduler.plugins.pod_topology_spread import no_selector
from tiphys_scheduler.plugins.service_affinity import ServiceAffinity
from tiphys_scheduler.plugins.volume_binding import VolumeBinding
from tiphys_scheduler.pod_info import PodInfo, pod_info
from tiphys_scheduler.preemptor import Preemption, Preemptor
from tiphys_scheduler.refusals import Refusals
from tiphys_scheduler.scheduler_metrics import ERROR, SCHEDULED, UNSCHEDULABLE, SchedulerMetrics
from tiphys_scheduler.scheduling_queue import Gates, SchedulingQueue, Waiting
from tiphys_scheduler.services import Services
from tiphys_scheduler.storage import follow_storage
from tiphys_scheduler.surroundings import Surroundings
from tiphys_scheduler.volumes import StorageInformers, Volumes

_log = get_logger("scheduler")
# So many pods are placed before other tasks have their turn: some 10 ms.
_PODS_A_TURN = 100
_NODE_REMOVED = frozenset({Event.NODE_REMOVED})
_POD_ADDED = frozenset({Event.POD_ADDED})
_POD_DELETED = frozenset({Event.POD_DELETED})


class PodEvents(Protocol):
    """Tells users what happened to a pod."""

    def event(self, pod: PodInfo, kind: str, reason: str, message: str) -> None:
        """Records an Event on the pod; kind is Normal or Warning. Never waits."""
        ...


class Scheduler:
    """Places every pod of its name that has no node. Only `run` places; handlers of informers only take notes."""

    def __init__(
        self,
        client: Client,
        nodes: Informer[Node, object],
        pods: Informer[Pod, PodInfo],
        *,
        clock: Clock,
        events: PodEvents,
        registry: Registry,
        storage: StorageInformers,
        budgets: Informer[PodDisruptionBudget, BudgetView],
        config: Configuration | None = None,
        extend: Callable[[Profile], Profile] = lambda profile: profile,
        services: Services | None = None,
        remotes: Sequence[RemotePlugin] = (),
        surroundings: Surroundings | None = None,
        devices: DeviceSupport | None = None,
    ) -> None:
        """config chooses the plugins, extend adds to each profile; remotes are plugins in other processes.

        services are needed by ServiceAffinity only.

        Without surroundings namespaces have no labels, and pods no services and owners; without devices no claims.
        """
        config = config or Configuration()
        self._nodes, self._pods, self._storage = nodes, pods, storage
        self._events, self._surroundings = events, surroundings
        volumes = Volumes()
        self._volume_binding = VolumeBinding(volumes)
        self.cache = Cache(Columns(), volumes)
        self.nominations = Nominations(self.cache.columns)
        self._devices = devices
        self._clock = clock
        self._metrics = SchedulerMetrics(clock, self)
        self._preemptor = Preemptor(
            client,
            clock,
            told=self._on_victim,
            failed=self._on_preemption_failed,
            counts=self._metrics.preempted,
        )
        self._budgets, self._budget_views = budgets, Budgets()
        self._remotes = tuple(remotes)
        self._measured_uses: list[MeasuredUse] = []
        self._turn = 0
        self._extenders = [Extender(item) for item in config.extenders]
        self.frameworks = {
            item.name: self._framework(item, volumes, extend=extend, services=services) for item in config.profiles
        }
        plugins = [plugin for found in self.frameworks.values() for plugin in found.profile.plugins().values()]
        self._plugin_events = {plugin.name: plugin.events for plugin in (*plugins, *self._extenders)}
        # Checked with the configuration: all profiles sort alike.
        sort = next(iter(self.frameworks.values())).profile.queue_sort
        gates = Gates(self._admit, self._may_help, sort.sort_key, self._meant_for)
        self.queue = SchedulingQueue(clock, self._plugin_events, gates=gates, times=config.backoff)
        self.binding = BindingCycle(client, storage, volumes, clock=clock, done=self._on_bound)
        self._refusals = Refusals(client, clock)
        registry.collector(self._metrics.collect)
        self._follow(volumes)

    def _follow(self, volumes: Volumes) -> None:
        """Has all changes noted, before any pod is placed."""
        nodes, pods = self._nodes, self._pods
        follow_budgets(self._budgets, self._budget_views.set)
        if self._surroundings is not None:
            self._surroundings.follow(self.cache.columns, self.queue.move_on)
        follow_storage(self._storage, volumes, self.queue, self.binding.volume_binder)
        if self._devices is not None:
            self._devices.follow(self.queue)
        nodes.add_handler(on_set=self._on_node, on_delete=self._on_node_gone)
        pods.add_handler(on_set=self._on_pod, on_delete=self._on_pod_gone)

    def _framework(
        self,
        config: ProfileConfig,
        volumes: Volumes,
        *,
        extend: Callable[[Profile], Profile],
        services: Services | None,
    ) -> Framework:
        preemption = DefaultPreemption(
            self.cache,
            lambda: self.frameworks[config.name].profile.filters,
            self.nominations,
            budgets=self._budget_views,
            evictor=self._preemptor,
        )
        left_alone = tuple(name for item in self._extenders for name in item.left_to_it)
        args = replace(config.args, ignored_resources=(*config.args.ignored_resources, *left_alone))
        spare = MeasuredUse(args.measured_use) if args.measured_use is not None else None
        if spare is not None:
            self._measured_uses.append(spare)
            args = replace(args, ignored_groups=(*args.ignored_groups, SPARE_GROUP))
        selector_of = self._surroundings.selector_of if self._surroundings is not None else no_selector
        claims = (self._devices.plugin(self.cache.columns),) if self._devices is not None else ()
        every = replace(
            profile(self._volume_binding, volumes, args, selector_of=selector_of, claims=claims),
            post_filters=(*claims, preemption),
            binds=tuple(item for item in self._extenders if item.binds),
        )
        more: list[FilterPlugin] = []
        if config.args.added_affinity is not None:
            more.append(AddedAffinity(config.args.added_affinity))
        optional: list[FilterPlugin] = []
        if config.args.label_presence:
            optional.append(NodeLabel(config.args.label_presence))
        if config.args.service_labels:
            optional.append(ServiceAffinity(config.args.service_labels, self.cache, self._peers(services)))
        more.extend(item for item in self._remotes if item.filters)
        scores: list[tuple[ScorePlugin, int]] = [(item, item.weight) for item in self._remotes if item.scores]
        if spare is not None:
            more.append(spare)
            scores.append((spare, 1))
            every = replace(every, pre_filters=(*every.pre_filters, spare))
        every = extend(replace(every, filters=(*every.filters, *more, *optional), scores=(*every.scores, *scores)))
        made = configured(every, config, frozenset(plugin.name for plugin in optional))
        return Framework(made, self.cache.columns, self.nominations)

    def _peers(self, services: Services | None) -> Callable[[PodInfo], list[PodInfo]]:
        if services is None:
            raise ConfigurationError("serviceAffinity needs to know the services")
        return lambda pod: services.peers(pod, self.cache.placed())

    def framework_of(self, pod: PodInfo) -> Framework:
        """What places the pod; for pods of other schedulers what would place it here."""
        return self.frameworks.get(pod.scheduler_name) or next(iter(self.frameworks.values()))

    def note_use(self, measures: Mapping[str, Measure]) -> None:
        """What nodes were measured to use, for the profiles that place pods by it."""
        for plugin in self._measured_uses:
            plugin.note(measures, self.cache.columns)
        self.queue.move_on(frozenset({Event.USE}))

    def _admit(self, pod: PodInfo) -> tuple[str, str]:
        return self.frameworks[pod.scheduler_name].admit(pod)

    def _may_help(self, pod: PodInfo, refused_by: frozenset[str], change: Change) -> bool:
        return self.frameworks[pod.scheduler_name].may_help(pod, refused_by, change)

    async def run(self) -> None:
        """Places pods until cancelled. Informers are run by the caller."""
        await self._nodes.wait_synced()
        await self._pods.wait_synced()
        await self._budgets.wait_synced()
        for support in (self._storage, self._surroundings, self._devices):
            for informer in support.all() if support is not None else ():
                await informer.wait_synced()
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for extender in self._extenders:
                stack.push_async_callback(extender.close)
            start_loop(group, self.queue.run(), "scheduling queue")
            start_loop(group, self.binding.run(), "binding cycle")
            start_loop(group, self._refusals.run(), "refusals")
            start_loop(group, self._preemptor.run(), "preemption")
            if self._devices is not None:
                start_loop(group, self._devices.run(), "resource claims")
            start_loop(group, self._cycle(), "scheduling cycle")

    async def _cycle(self) -> None:
        while True:
            await self.queue.wait()
            self._turn += 1
            began_s, last = self._clock.monotonic(), None
            for _ in range(_PODS_A_TURN):
                waiting = self.queue.pop()
                if waiting is None:
                    break
                last = waiting.pod
                if self._remotes and not await self._ask_remotes(waiting):
                    continue
                if self._extenders and any(item.is_interested(waiting.pod) for item in self._extenders):
                    await self._schedule_extended(waiting)
                else:
                    self.schedule_one(waiting)
            self._metrics.turn_ended(began_s, last)
            await asyncio.sleep(0)

    async def _ask_remotes(self, waiting: Waiting) -> bool:
        """Has plugins outside say what they think of the pod's class; False where the pod can't be placed now."""
        pod, nodes = waiting.pod, self.cache.columns
        try:
            for remote in self._remotes:
                if remote.lacks(pod, nodes, self._turn):
                    await remote.refresh(pod, self._pods.get(pod.key) or Pod(), nodes, self._turn)
        except RemoteError as err:
            self._metrics.attempt(ERROR, pod.scheduler_name)
            self._events.event(pod, "Warning", "FailedScheduling", str(err))
            if self.queue.knows(pod):
                self.queue.refuse(waiting, frozenset())
            return False
        return self.queue.knows(pod)

    async def _schedule_extended(self, waiting: Waiting) -> None:
        """Where services outside have a say. Much may happen while they are asked, so the outcome is checked again."""
        pod = waiting.pod
        framework = self.frameworks[pod.scheduler_name]
        found = framework.candidates(pod)
        if isinstance(found, FitError):
            await self._preempt_extended(waiting, found)
            return
        rows, scores = found
        names = [self.cache.columns.names[row] for row in rows.tolist()]
        message = self._pods.get(pod.key)
        try:
            outcome = await ask(
                self._extenders, pod, message or Pod(), Nominees(names, scores.tolist(), self._nodes.get)
            )
        except ExtenderError as err:
            self._metrics.attempt(ERROR, pod.scheduler_name)
            self._events.event(pod, "Warning", "FailedScheduling", str(err))
            if self.queue.knows(pod):
                self.queue.refuse(waiting, frozenset())
            return
        if not self.queue.knows(pod):
            return
        if isinstance(outcome, str):
            if framework.fits(pod, outcome):
                row = self.cache.columns.row_of[outcome]
                self._take(waiting, Placement(row, outcome, 0))
            else:
                self.queue.refuse(waiting, frozenset())
            return
        refused = frozenset(item.name for item in self._extenders)
        self._refuse(waiting, FitError(len(self.cache.columns), (), counts=outcome, refused_by=refused))

    def schedule_one(self, waiting: Waiting) -> None:
        """Places one pod, or notes why it can't be placed."""
        pod = waiting.pod
        framework = self.frameworks[pod.scheduler_name]
        found = framework.place(pod, is_scored=False)
        if isinstance(found, FitError):
            self._refuse(waiting, found)
            return
        self._take(waiting, found)

    def _take(self, waiting: Waiting, found: Placement) -> None:
        """Counts the pod on its node and has it bound."""
        pod = waiting.pod
        framework = self.frameworks[pod.scheduler_name]
        self._metrics.attempt(SCHEDULED, pod.scheduler_name)
        # Before the pod counts: a pod is no other user of its own claims.
        decisions = self._volume_binding.decide(pod, self.cache.columns, found.row) if pod.needs.claims else None
        self.cache.assume(pod, found.node)
        self.queue.remove(pod.key)
        self.nominations.remove(pod.key)
        self.queue.move_on(_POD_ADDED, node=found.node, pod=pod)
        self.binding.start(Placed(waiting, found.node, framework.profile, decisions))

    async def _preempt_extended(self, waiting: Waiting, error: FitError) -> None:
        """Has extenders say whom they would spare before room is made."""
        pod = waiting.pod
        asked = [item for item in self._extenders if item.preempts and item.is_interested(pod)]
        points = self.frameworks[pod.scheduler_name].profile.post_filters
        plugin = next((item for item in points if isinstance(item, DefaultPreemption)), None)
        offers = plugin.offers(pod) if plugin is not None and asked and not error.rejected_by else {}
        if plugin is None or not offers:
            self._refuse(waiting, error)
            return
        message = self._pods.get(pod.key) or Pod()
        for extender in asked:
            try:
                offers = await extender.preempt(message, offers, self._pods.get)
            except ExtenderError as err:
                _log.warning("extender had no say in preemption", pod=pod.key, extender=extender.name, err=str(err))
                if not extender.is_ignorable:
                    offers = {}
        if self.queue.knows(pod):
            known = {node: victims for node, victims in offers.items() if node in self.cache.columns.row_of}
            self._refuse(waiting, error, plugin.settle(pod, error, known))

    def _refuse(self, waiting: Waiting, error: FitError, made: PostFilterResult | None = None) -> None:
        """made is what was done about it already."""
        pod = waiting.pod
        self._metrics.attempt(UNSCHEDULABLE, pod.scheduler_name)
        meant = self.nominations.node_of(pod.key)
        result = made or self._make_room(pod, error)
        error = replace(error, post_filter=result.message)
        self.queue.refuse(waiting, error.plugins or frozenset(self._plugin_events))
        nominated = self.nominations.node_of(pod.key)
        if meant not in ("", nominated):
            self.queue.move_on(_POD_DELETED, node=meant)
        if (pod.refusal, pod.nominated_node) != (error.message, nominated):
            self._refusals.add(pod, error.message, nominated)
        self._events.event(pod, "Warning", "FailedScheduling", error.message)

    def _make_room(self, pod: PodInfo, error: FitError) -> PostFilterResult:
        began_s = self._clock.monotonic()
        result = self.frameworks[pod.scheduler_name].post_filter(pod, error)
        self._metrics.post_filtered(began_s, bool(result.node), pod.scheduler_name)
        return result

    def _meant_for(self, node: str) -> list[str]:
        return [pod.key for pod in self.nominations.on(node)] if node else []

    def _on_victim(self, victim: PodInfo, message: str) -> None:
        self._events.event(victim, "Normal", "Preempted", message)

    def _on_preemption_failed(self, preemption: Preemption) -> None:
        """The room will not come: it is tried again, here or elsewhere."""
        self._forget_nomination(preemption.pod.key)
        self.queue.retry(preemption.pod.key)

    def _forget_nomination(self, key: str) -> None:
        node = self.nominations.remove(key)
        if node:
            self.queue.move_on(_POD_DELETED, node=node)

    def _on_bound(self, placed: Placed, failure: Failure | None) -> None:
        pod = placed.waiting.pod
        if failure is None:
            self._metrics.bound(placed.waiting)
            message = f"Successfully assigned {pod.key} to {placed.node}"
            self._events.event(pod, "Normal", "Scheduled", message)
            return
        self._metrics.error(pod.scheduler_name)
        self._give_back(placed)
        if isinstance(failure.error, NotFound):
            return
        _log.warning("pod not bound", pod=pod.key, node=placed.node, err=failure.message)
        self._events.event(pod, "Warning", "FailedScheduling", failure.message)
        self._put_back(placed.waiting)

    def _give_back(self, placed: Placed) -> None:
        """What the pod would have used is free for others."""
        self.cache.forget(placed.waiting.pod)
        self.queue.move_on(_POD_DELETED, node=placed.node, pod=placed.waiting.pod)

    def _put_back(self, waiting: Waiting) -> None:
        """To the queue again, unless the pod is gone, replaced or bound by another."""
        current = self._pods.projection(waiting.pod.key)
        if current is not None and current.uid == waiting.pod.uid and not current.node:
            self.queue.restore(waiting)

    def _drop(self, key: str) -> None:
        """A pod that is going is on its way to no node: what was chosen for it is free again."""
        placed = self.binding.drop(key)
        if placed is not None:
            self._give_back(placed)

    def _on_node(self, node: Node) -> None:
        events = self.cache.set_node(node)
        if events:
            self.queue.move_on(events, node=node.metadata.name)

    def _on_node_gone(self, node: Node) -> None:
        self.cache.remove_node(node.metadata.name)
        self.queue.move_on(_NODE_REMOVED)

    def _on_pod(self, pod: Pod) -> None:
        info = self._pods.projection(f"{pod.metadata.namespace}/{pod.metadata.name}") or pod_info(pod)
        if info.node or info.is_finished:
            self.queue.remove(info.key)
            self._forget_nomination(info.key)
            was_known = bool(self.cache.node_of(info.key))
            if self.cache.set_pod(info):
                self.queue.move_on(_POD_DELETED, node=info.node, pod=info)
            elif not was_known and not info.is_finished:
                self.queue.move_on(_POD_ADDED, node=info.node, pod=info)
            return
        if info.scheduler_name not in self.frameworks or info.is_deleting:
            self.queue.remove(info.key)
            self._forget_nomination(info.key)
            self._drop(info.key)
            return
        if not self.cache.node_of(info.key):
            if info.nominated_node and not self.queue.knows(info):
                # Another scheduler of our name has made room for it, or somebody else wants it there.
                self.nominations.add(info, info.nominated_node)
            self.queue.add(info)

    def _on_pod_gone(self, pod: Pod) -> None:
        key = f"{pod.metadata.namespace}/{pod.metadata.name}"
        self.queue.remove(key)
        self._forget_nomination(key)
        self._drop(key)
        node, info = self.cache.node_of(key), self.cache.pod_of(key)
        if self.cache.remove_pod(key):
            self.queue.move_on(_POD_DELETED, node=node, pod=info)
