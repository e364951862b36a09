"""Rolls each Deployment from one template to the next, by sizing its ReplicaSets.

One reconciliation takes one step, as a step's effect shows in the ReplicaSets' statuses only later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.errors import APIError, NotFound
from tiphys_apimachinery.labels import Selector, SelectorError, from_label_selector
from tiphys_apimachinery.meta import (
    find_condition,
    get_controller_of,
    is_being_deleted,
    join_key,
    namespaced_name,
    new_controller_ref,
)
from tiphys_client.controller import RequeueAfter, Terminal
from tiphys_controller_manager.controllers.deployment import progress
from tiphys_controller_manager.controllers.deployment.history import superfluous
from tiphys_controller_manager.controllers.deployment.progress import PROGRESSING, Rollout, Said
from tiphys_controller_manager.controllers.deployment.replica_sets import NameTaken, ReplicaSetControl
from tiphys_controller_manager.controllers.deployment.revision import (
    API_VERSION,
    KIND,
    REVISION,
    age_order,
    find_new,
    size_of,
)
from tiphys_controller_manager.controllers.deployment.rolling import (
    Limits,
    SetSize,
    grow_new,
    is_scaling,
    limits_of,
    scale,
    shrink_old,
    stop_old,
)
from tiphys_controller_manager.frame import Context, Watch, own_key
from tiphys_controller_manager.ownership import Adopter, MessageView, sort_out
from tiphys_controller_manager.pod_control import is_namespace_ending
from tiphys_controller_manager.pods import CONTROLLER_INDEX, NAMESPACE_INDEX, orphans_in

# How long to wait for a view that lags; the events that end the wait come by themselves.
_LAG_S: Final = 1.0


@dataclass(slots=True)
class _Work:
    """One Deployment while it is reconciled: our own copies, changed as the round goes on."""

    key: str
    deployment: apps_pb2.Deployment
    # The status on the server, to tell whether it must be written.
    written: apps_pb2.DeploymentStatus
    limits: Limits
    new: apps_pb2.ReplicaSet | None
    olds: list[apps_pb2.ReplicaSet]

    @property
    def sets(self) -> list[apps_pb2.ReplicaSet]:
        return [*self.olds, *([self.new] if self.new is not None else [])]

    @property
    def old_sizes(self) -> list[SetSize]:
        return [size_of(old) for old in self.olds]

    @property
    def new_size(self) -> SetSize | None:
        return size_of(self.new) if self.new is not None else None

    @property
    def rollout(self) -> Rollout:
        return Rollout(self.deployment, self.new, self.olds, self.limits)


class DeploymentController:
    """Reconciles one Deployment at a time; keys are namespace/name."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._clock = context.clock
        self._events = context.events
        self._deployments = context.informers.of(apps_pb2.Deployment)
        self._replica_sets = context.informers.of(apps_pb2.ReplicaSet)
        self._pods = context.informers.of(pod_pb2.Pod)
        self._expectations = context.expectations(apps_pb2.ReplicaSet)
        self._own_writes = context.expectations(apps_pb2.Deployment)
        self._control = ReplicaSetControl(context.client, context.events, self._expectations)
        self._adopter = Adopter(context.client, apps_pb2.ReplicaSet)

    def watches(self) -> Iterable[Watch]:
        """Deployments, their ReplicaSets, and the end of their pods, for which Recreate waits."""
        return (
            Watch(apps_pb2.Deployment, self._own_keys),
            Watch(apps_pb2.ReplicaSet, self._replica_set_keys),
            Watch(pod_pb2.Pod, self._pod_keys),
        )

    def first_keys(self) -> Iterable[str]:
        """None: every Deployment is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """One step of one Deployment."""
        deployment = self._deployments.get(key)
        if deployment is None:
            self._forget(key)
            return None
        if not (self._own_writes.are_met(key) and self._expectations.are_met(key)):
            return RequeueAfter(_LAG_S)
        try:
            selector = from_label_selector(deployment.spec.selector)
            limits = limits_of(deployment)
        except (SelectorError, ValueError) as err:
            raise Terminal(f"deployment {key}: {err}") from err
        if not selector:
            message = "This deployment is selecting all pods. A non-empty selector is required."
            self._events.event(deployment, "Warning", "SelectingAll", message)
            return None
        sets = await self._own_sets(key, deployment, selector)
        new = find_new(deployment, sets)
        olds = [item for item in sets if new is None or item.metadata.uid != new.metadata.uid]
        written = apps_pb2.DeploymentStatus()
        written.CopyFrom(deployment.status)
        work = _Work(key, deployment, written, limits, new, olds)
        status = await self._step(work)
        await self._write_status(work, status)
        wait_s = progress.look_again_after(deployment, status, self._now())
        return RequeueAfter(wait_s) if wait_s is not None else None

    async def _step(self, work: _Work) -> apps_pb2.DeploymentStatus:
        """Take the step that is due; the status to write afterwards."""
        deployment = work.deployment
        if is_being_deleted(deployment):
            return progress.counts(work.rollout, self._now())
        progress.note_pause(deployment, self._now())
        if deployment.spec.paused or is_scaling(work.limits, [size_of(item) for item in work.sets]):
            return await self._scale(work)
        if work.limits.is_rolling:
            return await self._roll(work)
        return await self._recreate(work)

    async def _scale(self, work: _Work) -> apps_pb2.DeploymentStatus:
        await self._use_new(work)
        sizes = scale(work.limits, work.new_size, work.old_sizes, work.written.replicas)
        await self._resize(work, sizes)
        if work.deployment.spec.paused:
            await self._clean_up(work)
        return progress.counts(work.rollout, self._now())

    async def _roll(self, work: _Work) -> apps_pb2.DeploymentStatus:
        await self._ensure_new(work)
        new = work.new_size
        if new is not None and work.new is not None:
            size = grow_new(work.limits, new, work.old_sizes)
            if size != new.replicas:
                await self._resize(work, {new.name: size})
            elif not await self._resize(work, shrink_old(work.limits, new, work.old_sizes)):
                await self._finish(work)
        return progress.rollout_status(work.rollout, self._now())

    async def _recreate(self, work: _Work) -> apps_pb2.DeploymentStatus:
        await self._use_new(work)
        stopped = await self._resize(work, stop_old(work.old_sizes))
        if not stopped and not self._old_pods_run(work):
            await self._ensure_new(work)
            new = work.new_size
            if new is not None and not await self._resize(work, {new.name: work.limits.replicas}):
                await self._finish(work)
        return progress.rollout_status(work.rollout, self._now())

    async def _use_new(self, work: _Work) -> None:
        """Bring the new ReplicaSet up to date if there is one, and the Deployment's revision with it."""
        if work.new is None:
            return
        await self._control.refresh(work.key, work.deployment, work.new, work.olds)
        if find_condition(work.deployment.status.conditions, PROGRESSING) is None:
            self._progress(work, "True", "FoundNewReplicaSet", f'Found new replica set "{work.new.metadata.name}"')
        await self._note_revision(work)

    async def _ensure_new(self, work: _Work) -> None:
        """Have a ReplicaSet of the present template; work.new stays None only in a namespace that is going."""
        if work.new is not None:
            await self._use_new(work)
            return
        replicas = grow_new(work.limits, SetSize("", 0.0, 0), work.old_sizes)
        try:
            work.new = await self._control.make(
                work.key, work.deployment, work.olds, replicas=replicas, limits=work.limits
            )
        except NameTaken:
            # The next round makes another name of it.
            work.deployment.status.collisionCount += 1
            await self._write_status(work, work.deployment.status)
            raise
        except APIError as err:
            if is_namespace_ending(err):
                return
            message = f"Failed to create new replica set: {err}"
            self._progress(work, "False", "ReplicaSetCreateError", message)
            self._events.event(work.deployment, "Warning", "ReplicaSetCreateError", message)
            await self._write_status(work, work.deployment.status)
            raise
        self._progress(work, "True", "NewReplicaSetCreated", f'Created new replica set "{work.new.metadata.name}"')
        await self._note_revision(work)

    async def _note_revision(self, work: _Work) -> None:
        """The Deployment carries the revision of its new ReplicaSet."""
        if work.new is None:
            return
        revision = work.new.metadata.annotations.get(REVISION, "")
        if work.deployment.metadata.annotations.get(REVISION, "") == revision:
            return
        work.deployment.metadata.annotations[REVISION] = revision
        stored = await self._client.update(work.deployment)
        self._own_writes.wrote(work.key, stored)
        work.deployment.metadata.CopyFrom(stored.metadata)

    async def _resize(self, work: _Work, sizes: dict[str, int]) -> bool:
        return await self._control.resize(work.key, work.deployment, work.sets, sizes, limits=work.limits)

    async def _finish(self, work: _Work) -> None:
        if progress.is_complete(work.deployment, progress.counts(work.rollout, self._now())):
            await self._clean_up(work)

    async def _clean_up(self, work: _Work) -> None:
        for old in superfluous(work.deployment, work.olds):
            await self._control.delete(work.key, old)

    async def _write_status(self, work: _Work, status: apps_pb2.DeploymentStatus) -> None:
        if progress.same_status(status, work.written):
            return
        changed = apps_pb2.Deployment()
        changed.CopyFrom(work.deployment)
        changed.status.CopyFrom(status)
        try:
            self._own_writes.wrote(work.key, await self._client.update_status(changed))
        except NotFound:
            # Deleted while we worked on it: nobody is left to be told.
            self._forget(work.key)

    def _forget(self, key: str) -> None:
        self._expectations.forget(key)
        self._own_writes.forget(key)

    async def _own_sets(
        self, key: str, deployment: apps_pb2.Deployment, selector: Selector
    ) -> list[apps_pb2.ReplicaSet]:
        metadata = deployment.metadata
        known = self._replica_sets.by_index(CONTROLLER_INDEX, metadata.uid)
        known += self._replica_sets.by_index(CONTROLLER_INDEX, orphans_in(metadata.namespace))
        owned = sort_out(deployment, selector, [MessageView(item) for item in known])
        reference = new_controller_ref(deployment, API_VERSION, KIND)
        kept = await self._adopter.settle(
            deployment, reference, owned, lambda stored: self._expectations.wrote(key, stored)
        )
        return sorted((view.obj for view in kept), key=age_order)

    def _old_pods_run(self, work: _Work) -> bool:
        """Whether a pod of an old template may still be at work; one whose node does not answer counts as such."""
        if any(size.actual for size in work.old_sizes):
            return True
        store = self._pods.store
        for old in work.olds:
            for _, pod in store.projections_by_index(CONTROLLER_INDEX, old.metadata.uid):
                if not pod.is_finished:
                    return True
        return False

    def _progress(self, work: _Work, status: str, reason: str, message: str) -> None:
        if progress.has_deadline(work.deployment):
            progress.set_condition(work.deployment.status, Said(PROGRESSING, status, reason, message), self._now())

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def _own_keys(self, old: Any, new: Any) -> Iterable[str]:
        if new is not None and self._own_writes.is_echo(namespaced_name(new), new):
            return ()
        return own_key(old, new)

    def _replica_set_keys(self, old: Any, new: Any) -> Iterable[str]:
        keys: dict[str, None] = {}
        for item in (new, old):
            owner = get_controller_of(item) if item is not None else None
            if owner is not None and owner.kind == KIND and owner.apiVersion == API_VERSION:
                keys[join_key(item.metadata.namespace, owner.name)] = None
        if new is not None and get_controller_of(new) is None and not is_being_deleted(new):
            for deployment in self._deployments.by_index(NAMESPACE_INDEX, new.metadata.namespace):
                if _selects(deployment, new):
                    keys[namespaced_name(deployment)] = None
        return keys

    def _pod_keys(self, old: Any, new: Any) -> Iterable[str]:
        if new is not None:
            return ()
        owner = get_controller_of(old)
        if owner is None or owner.kind != "ReplicaSet":
            return ()
        replica_set = self._replica_sets.get(join_key(old.metadata.namespace, owner.name))
        if replica_set is None:
            return ()
        return [key for key in self._replica_set_keys(None, replica_set) if self._waits_for_pods(key)]

    def _waits_for_pods(self, key: str) -> bool:
        deployment = self._deployments.get(key)
        return deployment is not None and deployment.spec.strategy.type == "Recreate"


def _selects(deployment: apps_pb2.Deployment, item: apps_pb2.ReplicaSet) -> bool:
    try:
        selector = from_label_selector(deployment.spec.selector)
    except SelectorError:
        return False
    return bool(selector) and selector.matches(item.metadata.labels)
