"""Says in each PodDisruptionBudget how many of its pods may go now; evictions spend that.

Besides, it takes back the condition DisruptionTarget from pods that stayed although it said they would go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import pod_pb2, replication_controller_pb2
from tiphys.api.policy.v1 import policy_pb2
from tiphys_apimachinery.errors import APIError, Conflict, NotFound
from tiphys_apimachinery.meta import (
    find_condition,
    format_time,
    get_controller_of,
    is_being_deleted,
    join_key,
    namespaced_name,
)
from tiphys_client.controller import RequeueAfter
from tiphys_controller_manager.controllers.disruption.plan import (
    Budget,
    demand_of,
    disrupted_of,
    failed_status,
    healthy_count,
    needs_scale,
    status_of,
)
from tiphys_controller_manager.frame import Context, Watch, own_key
from tiphys_controller_manager.pods import NAMESPACE_INDEX, Owner, PodView, owner_of, seconds
from tiphys_controller_manager.scales import NoScaleError, Scales

DISRUPTION_TARGET: Final = "DisruptionTarget"
# Source: disruption.go, stalePodDisruptionTimeout.
_STALE_S: Final = 120.0
# Keys of pods, beside those of budgets: pod/namespace/name.
_POD: Final = "pod/"
_LAG_S: Final = 1.0


class DisruptionController:
    """Reconciles one budget, or one pod with a condition that is out of date, at a time."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._clock = context.clock
        self._events = context.events
        self._budgets = context.informers.of(Budget)
        self._pods = context.informers.of(pod_pb2.Pod)
        self._replica_sets = context.informers.of(apps_pb2.ReplicaSet)
        # Owners whose scale is read from the copies that other controllers keep anyway.
        self._owners: dict[tuple[str, str], Any] = {
            ("apps", "ReplicaSet"): self._replica_sets,
            ("apps", "Deployment"): context.informers.of(apps_pb2.Deployment),
            ("apps", "StatefulSet"): context.informers.of(apps_pb2.StatefulSet),
            ("", "ReplicationController"): context.informers.of(replication_controller_pb2.ReplicationController),
        }
        self._scales = Scales(context)
        self._own_writes = context.expectations(Budget)
        # When the grants of a budget were first seen, by its key: pod and stamp, and our monotonic clock.
        self._grants: dict[str, dict[tuple[str, int], float]] = {}

    def watches(self) -> Iterable[Watch]:
        """Budgets, and the pods that they cover."""
        return Watch(Budget, own_key), Watch(pod_pb2.Pod, self._pod_keys)

    def first_keys(self) -> Iterable[str]:
        """None: every budget is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Bring one budget's status, or one pod's condition, up to date. Raises errors of the API."""
        if key.startswith(_POD):
            return await self._look_at_pod(key.removeprefix(_POD))
        budget = self._budgets.get(key)
        if budget is None:
            self._own_writes.forget(key)
            self._grants.pop(key, None)
            return None
        if not self._own_writes.are_met(key):
            return RequeueAfter(_LAG_S)
        try:
            return await self._count(key, budget)
        except Conflict:
            # An eviction has spent from it meanwhile; what it spent is not in what was counted.
            raise
        except (APIError, NoScaleError) as err:
            self._events.event(
                budget,
                "Warning",
                "CalculateExpectedPodCountFailed",
                f"Failed to calculate the number of expected pods: {err}",
            )
            await self._write(key, budget, failed_status(budget, str(err), now=self._now()))
            raise

    async def _count(self, key: str, budget: Budget) -> RequeueAfter | None:
        pods = self._pods_of(key, budget.metadata.namespace)
        if not pods:
            self._events.event(budget, "Normal", "NoPods", "No matching pods found")
        wanted = await self._wanted(budget, pods) if needs_scale(budget) else 0
        now, elapsed = self._now(), self._clock.monotonic()
        disrupted = disrupted_of(budget, pods, known_since=self._known_since(key, budget, elapsed), now=elapsed)
        for pod in disrupted.overdue:
            text = f"Pod was expected by PDB {key} to be deleted but it wasn't"
            self._events.event(self._pods.get(pod.key) or budget, "Warning", "NotDeleted", text)
        demand = demand_of(budget, pods=len(pods), wanted=wanted)
        status = status_of(budget, demand, disrupted, healthy=healthy_count(pods, disrupted), now=now)
        await self._write(key, budget, status)
        return RequeueAfter(disrupted.next_due - elapsed) if disrupted.next_due is not None else None

    def _known_since(self, key: str, budget: Budget, now: float) -> dict[str, float]:
        """Since when each grant of a budget is known here; a grant of another moment is another one."""
        grants = {(name, stamp.seconds): name for name, stamp in budget.status.disruptedPods.items()}
        known = self._grants.get(key, {})
        self._grants[key] = {grant: known.get(grant, now) for grant in grants}
        return {name: self._grants[key][grant] for grant, name in grants.items()}

    def _pods_of(self, key: str, namespace: str) -> list[PodView]:
        view = self._budgets.store.projection(key)
        if view is None:
            return []
        in_namespace = self._pods.store.projections_by_index(NAMESPACE_INDEX, namespace)
        return [pod for _, pod in in_namespace if view.selector.matches(pod.labels)]

    async def _wanted(self, budget: Budget, pods: Sequence[PodView]) -> int:
        """How many pods the owners of these want. Raises NoScaleError for an owner that does not say."""
        owners = {pod.controller.uid: pod.controller for pod in pods if pod.controller is not None}
        if any(pod.controller is None for pod in pods):
            self._events.event(
                budget,
                "Warning",
                "UnmanagedPods",
                "Pods selected by this PodDisruptionBudget were found to be unmanaged. As a result, the status of the "
                "PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods "
                'please set ".spec.minAvailable" field of the PDB to an integer value.',
            )
        wanted: dict[str, int] = {}
        for owner in owners.values():
            uid, replicas = await self._scale_of(owner, budget.metadata.namespace)
            wanted[uid] = replicas
        return sum(wanted.values())

    async def _scale_of(self, owner: Owner, namespace: str) -> tuple[str, int]:
        """The uid of the topmost owner that is scaled, and how many pods it wants."""
        group = owner.api_version.rpartition("/")[0]
        informer = self._owners.get((group, owner.kind))
        if informer is None:
            scale = await self._scales.get(owner.api_version, owner.kind, namespace, owner.name)
            if scale is None or scale.metadata.uid != owner.uid:
                raise NoScaleError(f"{owner.kind} {join_key(namespace, owner.name)}, which owns pods, is gone")
            return owner.uid, scale.spec.replicas
        found = informer.get(join_key(namespace, owner.name))
        if found is None or found.metadata.uid != owner.uid:
            raise NoScaleError(f"{owner.kind} {join_key(namespace, owner.name)}, which owns pods, is gone")
        above = get_controller_of(found)
        if owner.kind == "ReplicaSet" and above is not None and above.kind == "Deployment":
            return await self._scale_of(owner_of(above), namespace)
        return owner.uid, found.spec.replicas

    async def _write(self, key: str, budget: Budget, status: policy_pb2.PodDisruptionBudgetStatus) -> None:
        """Write the status over the very version that it was counted from. Raises Conflict."""
        if status == budget.status:
            return
        budget.status.CopyFrom(status)
        try:
            self._own_writes.wrote(key, await self._client.update_status(budget))
        except NotFound:
            self._own_writes.forget(key)

    async def _look_at_pod(self, key: str) -> RequeueAfter | None:
        """Take DisruptionTarget back from a pod that did not go."""
        pod = self._pods.get(key)
        if pod is None or not _is_to_go(pod):
            return None
        condition: Any = find_condition(pod.status.conditions, DISRUPTION_TARGET)
        wait_s = seconds(condition.lastTransitionTime) + _STALE_S - self._now()
        if wait_s > 0:
            return RequeueAfter(wait_s)
        taken_back = {
            "type": DISRUPTION_TARGET,
            "status": "False",
            "lastTransitionTime": format_time(self._clock.now()),
        }
        metadata = pod.metadata
        patch = {
            "metadata": {"uid": metadata.uid, "resourceVersion": metadata.resourceVersion},
            "status": {"conditions": [taken_back]},
        }
        try:
            await self._client.patch(
                pod_pb2.Pod, metadata.name, metadata.namespace, patch, type="strategic", subresource="status"
            )
        except NotFound:
            return None
        return None

    def _pod_keys(self, old: Any, new: Any) -> Iterable[str]:
        pods = [pod for pod in (old, new) if pod is not None]
        for view in self._views_in(pods[0].metadata.namespace):
            if any(view.selector.matches(pod.metadata.labels) for pod in pods):
                yield view.key
        if new is not None and _is_to_go(new):
            yield f"{_POD}{namespaced_name(new)}"

    def _views_in(self, namespace: str) -> Iterable[Any]:
        return [view for _, view in self._budgets.store.projections_by_index(NAMESPACE_INDEX, namespace)]

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _is_to_go(pod: Any) -> bool:
    """Whether a pod is said to go, and nothing came of it yet."""
    if is_being_deleted(pod) or pod.status.phase in ("Succeeded", "Failed"):
        return False
    condition = find_condition(pod.status.conditions, DISRUPTION_TARGET)
    # What the kubelet ends it also brings to its end.
    return condition is not None and condition.status == "True" and condition.reason != "TerminationByKubelet"
