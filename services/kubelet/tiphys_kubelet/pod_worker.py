"""One pod's worker: asks pod_state what to do, does it, and asks again.

A worker owns its pod: nobody else touches its sandboxes, containers, volumes or status. It sleeps until something
happens: the API's object changed, the runtime's picture changed, a probe has a new verdict, or a time has come. Work
that may take long is dropped when the pod is deleted, or is to end sooner than it was to.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tiphys.api.core.v1.pod_pb2 import Pod, PodStatus
from tiphys.api.core.v1.service_pb2 import Service
from tiphys_apimachinery.errors import APIError, Conflict, NotFound
from tiphys_component.app import interruptible
from tiphys_component.backoff import Backoff as RetryBackoff
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.proc import to_thread
from tiphys_cri.errors import CRIError
from tiphys_kubelet import pod_state
from tiphys_kubelet.api import ApiClient, EventSink
from tiphys_kubelet.dra.manager import ClaimsNotReady, NoClaims, PodClaims
from tiphys_kubelet.objects import ObjectCache, Objects
from tiphys_kubelet.observation import ContainerObservation, PodObservation
from tiphys_kubelet.pleg import PodLifecycle
from tiphys_kubelet.pod_spec import DEFAULT_GRACE_S, pod_key, spec_hash
from tiphys_kubelet.pod_state import (
    CreateSandbox,
    KillContainer,
    KillPod,
    Plan,
    PodInputs,
    RemoveContainer,
    StartContainer,
    StartFailure,
    StopOrder,
    Waiting,
)
from tiphys_kubelet.pod_status import StatusInputs, make_status
from tiphys_kubelet.probes.manager import ProbeManager
from tiphys_kubelet.resizing.actuator import RETRY_S as RESIZE_RETRY_S
from tiphys_kubelet.resizing.actuator import Actuator
from tiphys_kubelet.resizing.resizes import Resizes
from tiphys_kubelet.resources.allocation import NotYet, Refused
from tiphys_kubelet.resources.interface import NoDevices, PodDevices
from tiphys_kubelet.runtime.images import ERR_IMAGE_PULL, ImageError
from tiphys_kubelet.runtime.labels import log_directory
from tiphys_kubelet.runtime.pod_runtime import PodContext, PodRuntime, StartError
from tiphys_kubelet.status_manager import StatusManager
from tiphys_kubelet.volumes.interface import VolumeError, VolumesFailed
from tiphys_kubelet.volumes.manager import MountedVolumes, VolumeManager, VolumeSurroundings, next_refresh

RETRY_BASE_S = 0.5
RETRY_CAP_S = 60.0
VOLUMES_RETRY_S = 30.0
# Waiting for a claim to be bound or a volume to be attached is told of after this; a kubelet of others takes 2 minutes.
VOLUMES_PATIENCE = timedelta(seconds=30)
EPOCH = datetime.fromtimestamp(0, UTC)
# How long a failed pull is shown as such before it is shown as a back-off.
PULL_ERROR_SHOWN_S = 1.0
DEADLINE = Waiting("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all workers share. `services` gives the cluster's Services, `host_ips` the node's addresses."""

    client: ApiClient
    clock: Clock
    events: EventSink
    lifecycle: PodLifecycle
    runtime: PodRuntime
    volumes: VolumeManager
    objects: ObjectCache
    probes: ProbeManager
    statuses: StatusManager
    resizes: Resizes
    actuator: Actuator
    services: Callable[[], Sequence[Service]] = tuple
    host_ips: Sequence[str] = ()
    runtime_name: str = "containerd"
    release_cgroup: Callable[[Pod], None] = lambda pod: None
    # Told of each step: create, update, sync (the time had come) or kill, and its seconds.
    worked: Callable[[str, float], None] = lambda operation, took_s: None
    devices: PodDevices = field(default_factory=NoDevices)
    claims: PodClaims = field(default_factory=NoClaims)


@dataclass(slots=True)
class _Memory:
    """What a worker remembers between two decisions; all of it may be lost."""

    backoffs: dict[str, pod_state.Backoff] = field(default_factory=dict)
    failures: dict[str, StartFailure] = field(default_factory=dict)
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    told_backoff: dict[str, int] = field(default_factory=dict)
    volumes: MountedVolumes | None = None
    volumes_stale: bool = False
    volumes_retry_at: datetime = EPOCH
    volumes_waiting_since: datetime | None = None
    failed: Waiting | None = None
    admitted: bool = False
    ended: bool = False
    released: bool = False
    # What the containers may use must be held against what is set aside for them, and when to try again.
    resize_due: bool = True
    resize_at: datetime = EPOCH
    restarting: set[str] = field(default_factory=set)


class PodWorker:
    """Takes one pod through its life; `run` returns when the pod is gone and nothing of it is left."""

    def __init__(self, pod: Pod, shared: Surroundings) -> None:
        # As it is to run: with the resources that are set aside for it, which its spec may be ahead of.
        self.pod = shared.resizes.accept(pod)
        self._shared = shared
        self._memory = _Memory()
        self._removed = False
        self._stop: StopOrder | None = None
        self._wake = asyncio.Event()
        # Set with _wake by what can make a failed step succeed; a mere echo of our own status can't.
        self._hope = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._log = get_logger("kubelet.worker", pod=pod_key(pod))

    def update(self, pod: Pod) -> None:
        """The API's object changed."""
        changed_meta = (
            pod.metadata.labels != self.pod.metadata.labels or pod.metadata.annotations != self.pod.metadata.annotations
        )
        if pod.metadata.generation != self.pod.metadata.generation or changed_meta:
            self._hope.set()
        before, self.pod = self.pod, self._shared.resizes.accept(pod)
        if self.pod.spec != before.spec:
            self._memory.resize_due, self._memory.resize_at = True, EPOCH
        self._memory.volumes_stale = self._memory.volumes_stale or changed_meta
        self._renew_stop()
        self._wake.set()

    def remove(self) -> None:
        """The API has no such pod any more."""
        self._removed = True
        self._renew_stop()
        self._wake.set()

    def resized(self) -> None:
        """The pod was given the resources that it waited for."""
        self.pod = self._shared.resizes.effective(self._uid) or self.pod
        self._memory.resize_due, self._memory.resize_at = True, EPOCH
        self.report()
        self._hope.set()
        self._wake.set()

    def observed(self) -> None:
        """The runtime's picture or a probe's verdict changed: report it at once, then decide."""
        self.report()
        self._wake.set()

    def objects_changed(self) -> None:
        """A ConfigMap or Secret that the pod refers to changed: what failed for want of it may work now."""
        self._memory.volumes_stale = True
        self._memory.volumes_retry_at = EPOCH
        self._drop_failures("CreateContainerConfigError")
        self._hope.set()
        self._wake.set()

    def devices_changed(self) -> None:
        """Devices of the node came, went or changed: what failed for want of them may work now."""
        self._drop_failures("CreateContainerConfigError")
        self.report()
        self._hope.set()
        self._wake.set()

    def report(self) -> None:
        """Makes the pod's status anew and hands it on."""
        shared, memory = self._shared, self._memory
        inputs = StatusInputs(
            pod=self.pod,
            observed=self._observation(),
            previous=self._status(),
            now=shared.clock.now(),
            host_ips=shared.host_ips,
            waiting=memory.waiting,
            probes=shared.probes.verdicts(self._uid),
            runtime_name=shared.runtime_name,
            ended=memory.ended,
            failed=memory.failed,
            devices=shared.devices.health(self.pod),
            resize=shared.resizes.conditions(self._uid),
        )
        status = make_status(inputs)
        if status.phase in ("Succeeded", "Failed"):
            # Before anybody can hear of it: the next pod may come for the devices at once.
            shared.devices.release(self._uid)
            shared.resizes.release(self._uid)
        shared.statuses.set(self.pod, status)

    def explain(self) -> Plan:
        """What would be done for the pod now, and what it waits for."""
        return pod_state.plan(self._inputs())

    async def run(self) -> None:
        """Works until the pod is gone."""
        retry = RetryBackoff(RETRY_BASE_S, RETRY_CAP_S)
        self._renew_stop()
        operation = "create"
        while True:
            self._wake.clear()
            self._hope.clear()
            try:
                wake_at = await self._timed(operation)
                retry.reset()
                operation = await self._sleep(self._wake, wake_at)
                continue
            except _Done:
                return
            except (CRIError, APIError, VolumeError, OSError, StartError, NotYet, ClaimsNotReady) as err:
                self._log.warning("pod can't be brought on, will retry", err=str(err), kind=type(err).__name__)
            except Exception as err:
                # A fault of ours in one pod must not end the other pods.
                self._log.exception("pod worker failed, will retry", err=repr(err))
            operation = await self._sleep(self._hope, self._shared.clock.now() + timedelta(seconds=retry.next()))

    async def _timed(self, operation: str) -> datetime | None:
        operation, began = "kill" if self._stop else operation, self._shared.clock.monotonic()
        try:
            return await self._step()
        finally:
            self._shared.worked(operation, self._shared.clock.monotonic() - began)

    async def _step(self) -> datetime | None:
        """Decides once and does it; the time to look again, None if nothing is due."""
        await self._admit()
        await self._resize()
        plan = pod_state.plan(self._inputs())
        self._memory.waiting = plan.waiting
        self._memory.ended = plan.ended
        self._tell_backoffs(plan)
        self.report()
        self._shared.probes.sync(self.pod, self._observation())
        if plan.ended:
            await self._end()
            return None
        if plan.actions:
            await self._interruptibly(self._execute(plan.actions))
            self._wake.set()
            return None
        await self._keep_volumes(plan)
        return self._next_look(plan)

    async def _admit(self) -> None:
        """Gets the pod its devices once, or fails the pod. Raises NotYet and OSError."""
        memory = self._memory
        over = self.pod.status.phase in ("Succeeded", "Failed") or memory.failed is not None
        if memory.admitted or over or self._stop is not None:
            return
        running = {c.name for c in self._observation().containers if c.is_alive}
        try:
            await self._interruptibly(self._shared.devices.allocate(self.pod, running))
        except Refused as err:
            message = f"Allocate failed due to {err}, which is unexpected"
            memory.failed = Waiting("UnexpectedAdmissionError", f"Pod was rejected: {message}")
            self._shared.events.event(self.pod, "Warning", "UnexpectedAdmissionError", message)
            self._renew_stop()
            return
        except NotYet as err:
            self._shared.events.event(self.pod, "Warning", "WaitingForDevices", str(err))
            raise
        memory.admitted = self._stop is None

    async def _resize(self) -> None:
        """Gives the containers what is set aside for them, where they may have something else. Raises OSError."""
        shared, memory, sandbox = self._shared, self._memory, self._observation().sandbox
        if not memory.resize_due or self._stop is not None or sandbox is None or not sandbox.ready:
            return
        if shared.clock.now() < memory.resize_at:
            return

        async def stop(target: ContainerObservation) -> None:
            memory.restarting.add(target.name)
            message = f"Container {target.name} resize requires restart"
            ip = self._pod_ip()
            await shared.runtime.kill_container(self.pod, target, grace_s=None, message=message, pod_ip=ip)

        async def bring() -> None:
            pod = self.pod
            done = await shared.actuator.bring(pod, stop, self.report, memory.restarting)
            # Another resize may have come meanwhile.
            memory.resize_due = not done or bool(memory.restarting) or pod is not self.pod
            if not done:
                memory.resize_at = shared.clock.now() + timedelta(seconds=RESIZE_RETRY_S)

        await self._interruptibly(bring())

    async def _prepare_claims(self) -> None:
        """Raises ClaimsNotReady after an event, and OSError."""
        try:
            await self._shared.claims.prepare(self.pod)
        except ClaimsNotReady as err:
            message = f"Failed to prepare dynamic resources: {err}"
            self._shared.events.event(self.pod, "Warning", "FailedPrepareDynamicResources", message)
            raise

    def _drop_failures(self, reason: str) -> None:
        for name, failure in list(self._memory.failures.items()):
            if failure.reason == reason:
                del self._memory.failures[name]

    async def _sleep(self, event: asyncio.Event, until: datetime | None) -> str:
        """Waits for the event, or until a time; which of them it was."""
        if until is None:
            await event.wait()
            return "update"
        left_s = (until - self._shared.clock.now()).total_seconds()
        timer = self._shared.clock.call_later(max(0.0, left_s), event.set)
        try:
            await event.wait()
        finally:
            timer.cancel()
        return "sync" if self._shared.clock.now() >= until else "update"

    async def _interruptibly(self, work: Coroutine[Any, Any, None]) -> None:
        """Does the work; an urgent change cancels it, and the next decision goes on from what was reached."""

        def hold(task: asyncio.Task[None]) -> None:
            self._work = task

        try:
            await interruptible(work, hold)
        finally:
            self._work = None

    async def _execute(self, actions: Sequence[pod_state.Action]) -> None:
        for action in actions:
            match action:
                case CreateSandbox(attempt):
                    await self._create_sandbox(attempt)
                case StartContainer():
                    await self._start(action)
                case KillContainer(target, grace_s, message):
                    await self._shared.runtime.kill_container(
                        self.pod, target, grace_s=grace_s, message=message, pod_ip=self._pod_ip()
                    )
                case KillPod(grace_s, message):
                    await self._kill_pod(grace_s, message)
                case RemoveContainer(target):
                    await self._shared.runtime.remove_container(target)

    async def _create_sandbox(self, attempt: int) -> None:
        """The sandbox takes longest; volumes are set up meanwhile. What fails with them is tried again at the start."""
        self._memory.volumes, self._memory.resize_due = None, False
        await self._prepare_claims()
        # One that died by itself, as with the machine, still holds its address: only the stop gives that back.
        for old in self._observation().sandboxes:
            await self._shared.runtime.runtime.stop_pod_sandbox(old.id)

        async def prepare() -> None:
            try:
                await self._prepare()
            except (VolumeError, APIError) as err:
                self._log.debug("volumes are not ready yet", err=str(err))

        async with asyncio.TaskGroup() as group:
            group.create_task(self._shared.runtime.create_sandbox(self.pod, attempt))
            group.create_task(prepare())

    async def _prepare(self) -> PodContext:
        """Reads what the pod refers to and sets its volumes up. Raises VolumeError or APIError."""
        shared, memory = self._shared, self._memory
        mounted = None if memory.volumes_stale else memory.volumes
        # Before anything is read: what changes from now on makes them stale again.
        memory.volumes_stale = False
        try:
            objects = await shared.objects.objects_of(self.pod)
            if mounted is None:
                mounted = memory.volumes = await self._set_up_volumes(objects)
        except BaseException:
            memory.volumes_stale = memory.volumes_stale or mounted is None
            raise
        return PodContext(self.pod, objects, mounted, shared.services(), shared.host_ips)

    async def _set_up_volumes(self, objects: Objects) -> MountedVolumes:
        shared = self._shared
        surroundings = VolumeSurroundings(
            objects=objects,
            pod_ips=[ip.ip for ip in self._status().podIPs],
            host_ips=shared.host_ips,
            allocatable=shared.runtime.settings.allocatable,
        )
        try:
            mounted = await shared.volumes.ensure(self.pod, surroundings)
        except VolumesFailed as err:
            self._tell_failed(err)
            raise
        self._memory.volumes_waiting_since = None
        return mounted

    def _tell_failed(self, err: VolumesFailed) -> None:
        """What others are still to do is no fault until it takes long."""
        now = self._shared.clock.now()
        since = self._memory.volumes_waiting_since = self._memory.volumes_waiting_since or now
        if not err.waiting or now - since >= VOLUMES_PATIENCE:
            for reason, text in err.texts:
                self._shared.events.event(self.pod, "Warning", reason, text)

    async def _start(self, action: StartContainer) -> None:
        container, memory = action.container, self._memory
        # Costs nothing where the sandbox had them prepared; a kubelet that lost its state has them prepared anew.
        await self._prepare_claims()
        context = await self._prepare()
        if action.after is not None and action.after.finished_at_ns:
            finished_at = pod_state.to_datetime(action.after.finished_at_ns)
            memory.backoffs[container.name] = pod_state.next_backoff(memory.backoffs.get(container.name), finished_at)
        try:
            await self._shared.runtime.start_container(context, action, self._observation())
            memory.failures.pop(container.name, None)
            memory.restarting.discard(container.name)
        except (StartError, ImageError) as err:
            if isinstance(err, StartError) and not await self._sandbox_lives():
                # It failed with its sandbox and not by itself: the next sandbox owes it a start without delay.
                memory.backoffs.pop(container.name, None)
                return
            now = self._shared.clock.now()
            if isinstance(err, StartError):
                retry_at = now + timedelta(seconds=err.retry_s)
            elif err.reason == ERR_IMAGE_PULL:
                retry_at = min(err.retry_at, now + timedelta(seconds=PULL_ERROR_SHOWN_S))
            else:
                retry_at = err.retry_at
            memory.failures[container.name] = StartFailure(err.reason, err.message, retry_at, spec_hash(container))

    async def _sandbox_lives(self) -> bool:
        sandbox = self._observation().sandbox
        if sandbox is not None:
            await self._shared.lifecycle.refresh_sandbox(sandbox.id)
        now = self._observation().sandbox
        return now is not None and now.ready

    async def _kill_pod(self, grace_s: int | None, message: str) -> None:
        if self._stop is None and message:
            self._shared.events.event(self.pod, "Normal", "SandboxChanged", message)
            message = ""
        self._shared.probes.stop_liveness(self._uid)
        await self._shared.runtime.kill_pod(self.pod, self._observation(), grace_s=grace_s, message="")

    async def _keep_volumes(self, plan: Plan) -> None:
        """Brings the content of volumes up to date when it is due."""
        if not self._wants_volumes(plan):
            return
        if self._memory.volumes is None:
            # An earlier life set them up, and they must be followed in this one too: tokens age, volumes grow.
            self._memory.volumes_stale = True
        due = next_refresh(self._memory.volumes or {})
        if due is not None and self._shared.clock.now() >= due:
            self._memory.volumes_stale = True
        if not self._memory.volumes_stale or self._shared.clock.now() < self._memory.volumes_retry_at:
            return
        # Said first: what comes meanwhile, such as the driver that was missing, makes it due at once.
        self._memory.volumes_retry_at = self._shared.clock.now() + timedelta(seconds=VOLUMES_RETRY_S)
        try:
            await self._prepare()
            self._memory.volumes_retry_at = EPOCH
        except (VolumeError, APIError) as err:
            # Containers that run keep the content that they have, and all else of the pod goes on.
            self._log.warning("volumes can't be brought up to date, will retry", err=str(err))

    async def _end(self) -> None:
        """Gives back what a pod that has ended holds, and when it is being deleted everything. Raises _Done then."""
        if self._is_leaving():
            await self._finish()
            raise _Done
        if not self._memory.released:
            await self._shared.claims.release(self._uid)
            await self._shared.volumes.release(self._uid)
            self._memory.released = True

    async def _finish(self) -> None:
        """Takes away what is left of a pod that has ended and is being deleted; may run twice."""
        shared, uid, meta = self._shared, self._uid, self.pod.metadata
        await shared.statuses.flush(uid)
        await shared.volumes.tear_down(uid)
        await shared.claims.release(uid)
        shared.devices.release(uid)
        shared.resizes.forget(uid)
        if not self._removed:
            # Gone already is well, and so is a younger pod of the same name in its place.
            with suppress(NotFound, Conflict):
                await shared.client.delete(Pod, meta.name, meta.namespace, grace_period_s=0, preconditions_uid=uid)
        await shared.runtime.remove_pod(self._observation())
        directory = log_directory(shared.runtime.settings.sandbox.log_root, self.pod)
        await to_thread(shutil.rmtree, directory, ignore_errors=True)
        shared.release_cgroup(self.pod)
        shared.probes.stop(uid)
        shared.objects.forget(uid)
        shared.statuses.forget(uid)

    def _inputs(self) -> PodInputs:
        now = self._shared.clock.now()
        deadline = self._deadline()
        if deadline is not None and now >= deadline:
            self._memory.failed = self._memory.failed or DEADLINE
            self._renew_stop()
        return PodInputs(
            pod=self.pod,
            observed=self._observation(),
            now=now,
            probes=self._shared.probes.verdicts(self._uid),
            backoffs=self._memory.backoffs,
            failures=self._memory.failures,
            stop=self._stop,
            restarting=self._memory.restarting,
        )

    def _deadline(self) -> datetime | None:
        spec, status = self.pod.spec, self._status()
        if not spec.HasField("activeDeadlineSeconds") or not status.HasField("startTime"):
            return None
        if status.phase in ("Succeeded", "Failed"):
            return None
        began = pod_state.to_datetime(status.startTime.seconds * 1_000_000_000)
        return began + timedelta(seconds=spec.activeDeadlineSeconds)

    def _next_look(self, plan: Plan) -> datetime | None:
        times = [plan.wake_at, self._deadline()]
        if self._memory.resize_due and self._memory.resize_at > EPOCH:
            times.append(self._memory.resize_at)
        if self._wants_volumes(plan):
            stale = self._memory.volumes_stale
            times.append(self._memory.volumes_retry_at if stale else next_refresh(self._memory.volumes or {}))
        return min((time for time in times if time is not None), default=None)

    def _wants_volumes(self, plan: Plan) -> bool:
        if self._memory.volumes is None and (self._stop is not None or self._observation().sandbox is None):
            return False
        return not plan.ended

    def _renew_stop(self) -> None:
        """Works out whether the pod must end; what is under way is dropped when it must end sooner than it was to."""
        order = self._stop_order()
        before = self._stop
        self._stop = order
        if order is not None and (before is None or order.grace_s < before.grace_s):
            self._hope.set()
            if self._work is not None:
                self._work.cancel()

    def _stop_order(self) -> StopOrder | None:
        """Source: the documented grace periods: it can only shrink, and is at least one second."""
        meta, spec = self.pod.metadata, self.pod.spec
        own = spec.terminationGracePeriodSeconds if spec.HasField("terminationGracePeriodSeconds") else DEFAULT_GRACE_S
        if self._is_leaving():
            grace = meta.deletionGracePeriodSeconds if meta.HasField("deletionGracePeriodSeconds") else own
        elif self._memory.failed is not None:
            grace = own
        else:
            return None
        if self._stop is not None:
            grace = min(grace, self._stop.grace_s)
        return StopOrder(max(1, grace))

    def _is_leaving(self) -> bool:
        return self._removed or self.pod.metadata.HasField("deletionTimestamp")

    def _tell_backoffs(self, plan: Plan) -> None:
        """Says once for each end of a container that it is held back."""
        for name, waiting in plan.waiting.items():
            latest = self._observation().latest(name)
            attempt = latest.attempt if latest is not None else -1
            if waiting.reason == pod_state.CRASH_LOOP and self._memory.told_backoff.get(name) != attempt:
                self._memory.told_backoff[name] = attempt
                meta = self.pod.metadata
                message = f"Back-off restarting failed container {name} in pod {meta.name}_{meta.namespace}({meta.uid})"
                self._shared.events.event(self.pod, "Warning", "BackOff", message, container=name)

    def _observation(self) -> PodObservation:
        return self._shared.lifecycle.observation(self._uid)

    def _status(self) -> PodStatus:
        return self._shared.statuses.get(self._uid) or self.pod.status

    def _pod_ip(self) -> str:
        sandbox = self._observation().sandbox
        return sandbox.ips[0] if sandbox is not None and sandbox.ips else ""

    @property
    def _uid(self) -> str:
        return self.pod.metadata.uid


class _Done(Exception):
    """The pod is gone."""
