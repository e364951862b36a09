"""HorizontalPodAutoscaler: reads scale and measures, decides, sets the scale, and says in the status why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tiphys.api.autoscaling.v1.autoscaling_pb2 import Scale
from tiphys.api.autoscaling.v2 import autoscaling_pb2 as v2
from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.errors import APIError, NotFound
from tiphys_apimachinery.meta import namespaced_name, split_key
from tiphys_client.controller import RequeueAfter
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.behavior import (
    Behavior,
    Defaults,
    History,
    behavior_of,
)
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.metrics_source import MetricsSource
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.plan import (
    Outcome,
    looks_at_measures,
    not_rescaled,
    plan,
    rescaled,
    without_scale,
    without_selector,
)
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.pod_facts import pod_facts
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.readings import PodFacts, Reading
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.replicas import Surroundings
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.selectors import Selectors, SelectorTrouble
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.status import new_status
from tiphys_controller_manager.frame import Context, Watch
from tiphys_controller_manager.pods import NAMESPACE_INDEX
from tiphys_controller_manager.scales import NoScaleError, Scales

Scaler = v2.HorizontalPodAutoscaler


class HorizontalPodAutoscalerController:
    """Keys are namespace/name of autoscalers; each is looked at when it changes, and every sync period.

    What was wished and done lately is kept in memory alone, as in Kubernetes: after a restart the number that is
    found counts as the first wish.
    """

    def __init__(self, context: Context) -> None:
        options = context.options
        self._client = context.client
        self._clock = context.clock
        self._events = context.events
        self._scalers = context.informers.of(Scaler)
        self._pods = context.informers.of(pod_pb2.Pod)
        self._scales = Scales(context)
        self._source = MetricsSource(context.rest, context.scheme, context.clock)
        self._options = options
        self._defaults = Defaults(
            int(options.horizontal_pod_autoscaler_downscale_stabilization_s),
            options.horizontal_pod_autoscaler_tolerance,
        )
        self._metrics = context.metrics.autoscaler
        self._selectors = Selectors()
        # By uid.
        self._histories: dict[str, History] = {}
        # The uid that a key had last.
        self._uids: dict[str, str] = {}

    def watches(self) -> Iterable[Watch]:
        """Autoscalers; their own status is none of their news."""
        return (Watch(Scaler, _changed),)

    def first_keys(self) -> Iterable[str]:
        """None: every autoscaler is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Look once. Raises errors of the API where the status can't be written."""
        scaler = self._scalers.get(key)
        if scaler is None or self._uids.get(key, scaler.metadata.uid) != scaler.metadata.uid:
            self._histories.pop(self._uids.pop(key, ""), None)
            self._selectors.forget(key)
        if scaler is None:
            return None
        uid = self._uids[key] = scaler.metadata.uid
        began = self._clock.monotonic()
        outcome, current = await self._look(scaler, self._histories.get(uid, History()))
        labels = _action(outcome, current), _fault(outcome)
        self._metrics.rounds.labels(*labels).inc()
        self._metrics.seconds.labels(*labels).observe(self._clock.monotonic() - began)
        self._histories[uid] = outcome.history
        for told in outcome.events:
            self._events.event(scaler, told.type, told.reason, told.message)
        await self._write_status(scaler, outcome, current)
        return RequeueAfter(self._options.horizontal_pod_autoscaler_sync_period_s)

    async def _look(self, scaler: Any, history: History) -> tuple[Outcome, int]:
        """What was done, and the number of replicas that was found."""
        spec, namespace = scaler.spec, scaler.metadata.namespace
        try:
            target = await self._read_scale(spec.scaleTargetRef, namespace)
        except (APIError, NoScaleError) as err:
            known = scaler.status.currentReplicas
            return without_scale(scaler.status.desiredReplicas, str(err), history), known
        current = target.spec.replicas
        readings: Sequence[Reading] = ()
        pods: Sequence[PodFacts] = ()
        if looks_at_measures(spec, current):
            try:
                pods = self._pods_of(namespaced_name(scaler), target.status.selector)
            except SelectorTrouble as err:
                return without_selector(current, err.reason, str(err), history), current
            readings = [await self._source.read(metric, namespace, target.status.selector) for metric in spec.metrics]
        behavior = behavior_of(spec, self._defaults)
        around = self._around(target, pods, behavior)
        outcome = plan(spec, readings, around, behavior=behavior, history=history)
        return await self._rescale(spec.scaleTargetRef, target, outcome, before=history), current

    async def _read_scale(self, reference: Any, namespace: str) -> Scale:
        """The target's scale. Raises NoScaleError, and errors of the API."""
        found = await self._scales.get(reference.apiVersion, reference.kind, namespace, reference.name)
        if found is None:
            raise NotFound(f'{reference.kind.lower()} "{reference.name}" not found')
        return found

    async def _rescale(self, reference: Any, target: Scale, outcome: Outcome, *, before: History) -> Outcome:
        if outcome.replicas is None:
            return outcome
        try:
            await self._scales.set(reference.apiVersion, reference.kind, target, outcome.replicas)
        except (APIError, NoScaleError) as err:
            return not_rescaled(outcome, target.spec.replicas, str(err), before)
        return rescaled(outcome)

    def _around(self, target: Scale, pods: Sequence[PodFacts], behavior: Behavior) -> Surroundings:
        options = self._options
        return Surroundings(
            current=target.spec.replicas,
            seen=target.status.replicas,
            pods=pods,
            tolerance=behavior.tolerance,
            now_s=self._clock.now().timestamp(),
            monotonic_s=self._clock.monotonic(),
            cpu_initialization_s=options.horizontal_pod_autoscaler_cpu_initialization_period_s,
            initial_readiness_s=options.horizontal_pod_autoscaler_initial_readiness_delay_s,
        )

    def _pods_of(self, key: str, selector: str) -> list[PodFacts]:
        """The pods that the target counts, by their labels: only these are parsed. Raises SelectorTrouble."""
        namespace = split_key(key)[0]
        views = self._pods.store.projections_by_index(NAMESPACE_INDEX, namespace)
        chosen = self._selectors.choose(key, selector, [view for _, view in views])
        found = (self._pods.get(view.key) for view in chosen)
        return [pod_facts(pod) for pod in found if pod is not None]

    async def _write_status(self, scaler: Any, outcome: Outcome, current: int) -> None:
        status = new_status(scaler, outcome, current, self._clock.now())
        if status == scaler.status:
            return
        changed = Scaler()
        changed.CopyFrom(scaler)
        changed.status.CopyFrom(status)
        try:
            await self._client.update_status(changed)
        except NotFound:
            return  # it went meanwhile


def _action(outcome: Outcome, current: int) -> str:
    if outcome.replicas is None or outcome.replicas == current:
        return "none"
    return "scale_up" if outcome.replicas > current else "scale_down"


def _fault(outcome: Outcome) -> str:
    """Whose fault it is that nothing, or not everything, was measured: the spec's or the cluster's."""
    wrong = [told.reason for told in outcome.events if told.type == "Warning"]
    if not wrong:
        return "none"
    return "spec" if any("Selector" in reason or "Invalid" in reason for reason in wrong) else "internal"


def _changed(old: Any, new: Any) -> Iterable[str]:
    seen = new if new is not None else old
    if old is None or new is None or old.metadata.generation != new.metadata.generation:
        yield namespaced_name(seen)
