"""What the runtime shows of every pod, kept true: the pod lifecycle event generator.

Three sources feed one picture. What we do ourselves is looked at right after it is done (`refresh_…`); the runtime's
event stream tells what happened by itself; a relist finds what both have missed. While events flow the relist is slow,
without them it is what Kubernetes does: once a second. After a start of ours the first relist rebuilds everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.proc import to_thread
from tiphys_cri.errors import CRIError, CRINotFound, CRIUnimplemented
from tiphys_cri.interface import RuntimeEvent, RuntimeEventType, RuntimeService
from tiphys_kubelet.observation import ContainerObservation, ContainerPhase, PodObservation, SandboxObservation
from tiphys_kubelet.runtime import labels
from tiphys_kubelet.runtime.limits import Limits, from_cri

RELIST_S = 1.0
RELIST_WITH_EVENTS_S = 10.0
RETRY_EVENTS_S = 1.0
EVENTS_BELIEVED_S = 2.5
# The runtime tells of an exit a moment before its own status shows it.
EXIT_LAG_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
MAX_MESSAGE_BYTES = 4096
FALLBACK_BYTES = 2048
FALLBACK_LINES = 80


async def told_limits(status: cri.ContainerStatus) -> Limits | None:
    """What a container may use, as the runtime tells."""
    return from_cri(status)


class PodLifecycle:
    """Observations by pod uid; `on_change` is told the uid whenever one of them changed."""

    def __init__(
        self,
        runtime: RuntimeService,
        clock: Clock,
        on_change: Callable[[str], None],
        limits: Callable[[cri.ContainerStatus], Awaitable[Limits | None]] = told_limits,
    ) -> None:
        self._runtime = runtime
        self._limits = limits
        self._clock = clock
        self._on_change = on_change
        self._log = get_logger("kubelet.pleg")
        self._sandboxes: dict[str, tuple[cri.PodSandbox, SandboxObservation]] = {}
        self._containers: dict[str, tuple[str, ContainerObservation]] = {}
        self._pods: dict[str, PodObservation] = {}
        self._has_events = False
        self._relisted = asyncio.Event()
        self.relisted_at = float("-inf")
        # Told how many seconds each relist took.
        self.on_relist: Callable[[float], None] = _unheard

    async def run(self) -> None:
        """Follows the runtime for ever; it may go away and come back."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_events(), name="runtime events")
            group.create_task(self._relist_for_ever(), name="relist")

    async def wait_relisted(self) -> None:
        """Returns when the first relist has rebuilt the picture."""
        await self._relisted.wait()

    def observation(self, uid: str) -> PodObservation:
        """What is known of a pod; of an unknown one an empty observation."""
        return self._pods.get(uid) or PodObservation(uid)

    def observations(self) -> Iterable[PodObservation]:
        """Every pod of which the runtime has something."""
        return tuple(self._pods.values())

    def sandbox_of(self, uid: str) -> cri.PodSandbox | None:
        """The newest sandbox of a pod as the runtime listed it; who the pod is can be read there."""
        pod = self._pods.get(uid)
        return self._sandboxes[pod.sandbox.id][0] if pod is not None and pod.sandbox is not None else None

    async def refresh_sandbox(self, sandbox_id: str) -> None:
        """Looks at one sandbox now."""
        try:
            status = await self._runtime.pod_sandbox_status(sandbox_id)
        except CRINotFound:
            known = self._sandboxes.pop(sandbox_id, None)
            if known is not None:
                self._rebuild(known[0].metadata.uid)
            return
        listed = cri.PodSandbox(
            id=status.id,
            metadata=status.metadata,
            state=status.state,
            created_at=status.created_at,
            labels=status.labels,
            annotations=status.annotations,
        )
        self._sandboxes[sandbox_id] = (listed, labels.observe_sandbox(status))
        self._rebuild(status.metadata.uid)

    async def refresh_container(self, container_id: str, sandbox_id: str = "") -> None:
        """Looks at one container now; sandbox_id is needed when it is seen for the first time."""
        known = self._containers.get(container_id)
        try:
            status = await self._runtime.container_status(container_id)
        except CRINotFound:
            # Asked of again: whoever removed it may have forgotten it while the runtime was answering.
            self.forget_container(container_id)
            return
        uid = status.labels.get(labels.POD_UID, "")
        message = await self._termination_message(status)
        limits = await self._limits(status) if status.state == cri.CONTAINER_RUNNING else None
        sandbox = known[1].sandbox_id if known is not None else sandbox_id
        self._containers[container_id] = (uid, labels.observe_container(status, sandbox, message, limits))
        self._rebuild(uid)

    def forget_container(self, container_id: str) -> None:
        """The container was removed by us."""
        known = self._containers.pop(container_id, None)
        if known is not None:
            self._rebuild(known[0])

    def forget_sandbox(self, sandbox_id: str) -> None:
        """The sandbox was removed by us, with its containers."""
        known = self._sandboxes.pop(sandbox_id, None)
        for container_id, (_, container) in list(self._containers.items()):
            if container.sandbox_id == sandbox_id:
                del self._containers[container_id]
        if known is not None:
            self._rebuild(known[0].metadata.uid)

    async def relist(self) -> None:
        """Compares the whole picture with the runtime."""
        began = self._clock.monotonic()
        sandboxes = {s.id: s for s in await self._runtime.list_pod_sandboxes() if labels.POD_UID in s.labels}
        containers = {c.id: c for c in await self._runtime.list_containers() if labels.POD_UID in c.labels}
        for sandbox_id in self._sandboxes.keys() - sandboxes.keys():
            self.forget_sandbox(sandbox_id)
        for container_id in self._containers.keys() - containers.keys():
            self.forget_container(container_id)
        for sandbox in sandboxes.values():
            known = self._sandboxes.get(sandbox.id)
            if known is None or known[1].ready != (sandbox.state == cri.SANDBOX_READY):
                await self.refresh_sandbox(sandbox.id)
        for container in containers.values():
            seen = self._containers.get(container.id)
            if seen is None or seen[1].phase is not labels.phase_of(container.state):
                await self.refresh_container(container.id, container.pod_sandbox_id)
        self.relisted_at = self._clock.monotonic()
        self.on_relist(self.relisted_at - began)
        self._relisted.set()

    async def _relist_for_ever(self) -> None:
        while True:
            try:
                await self.relist()
            except CRIError as err:
                self._log.warning("runtime can't be listed", err=err.message)
            # Without events for the first moments: what happens while the stream opens is seen by the second relist.
            await self._clock.sleep(RELIST_WITH_EVENTS_S if self._has_events else RELIST_S)

    async def _follow_events(self) -> None:
        while True:
            # A stream that has not failed for a moment is believed, also when nothing happens on the node.
            believed = self._clock.call_later(EVENTS_BELIEVED_S, self._believe_events)
            try:
                async for event in self._runtime.events():
                    await self._take(event)
            except CRIUnimplemented:
                self._log.info("runtime has no events, relisting only")
                return
            except CRIError as err:
                self._log.warning("runtime's event stream ended", err=err.message)
            finally:
                believed.cancel()
                self._has_events = False
            await self._clock.sleep(RETRY_EVENTS_S)

    def _believe_events(self) -> None:
        self._has_events = True

    async def _take(self, event: RuntimeEvent) -> None:
        try:
            if event.container_id in self._sandboxes:
                if event.type is not RuntimeEventType.STARTED:
                    await self._until_ended(event.container_id, sandbox=True)
            elif event.container_id in self._containers:
                if event.type is RuntimeEventType.STOPPED:
                    await self._until_ended(event.container_id, sandbox=False)
                else:
                    await self.refresh_container(event.container_id)
        except CRIError as err:
            self._log.warning("runtime can't be asked after an event", container=event.container_id, err=err.message)

    async def _until_ended(self, runtime_id: str, *, sandbox: bool) -> None:
        for lag_s in (0.0, *EXIT_LAG_S):
            if lag_s:
                await self._clock.sleep(lag_s)
            if sandbox:
                await self.refresh_sandbox(runtime_id)
                box = self._sandboxes.get(runtime_id)
                if box is None or not box[1].ready:
                    return
            else:
                await self.refresh_container(runtime_id)
                known = self._containers.get(runtime_id)
                if known is None or not known[1].is_alive:
                    return

    def _rebuild(self, uid: str) -> None:
        """Makes the observation of a pod anew and tells if it changed."""
        boxes = [box for listed, box in self._sandboxes.values() if listed.metadata.uid == uid]
        containers = [container for owner, container in self._containers.values() if owner == uid]
        if not boxes and not containers:
            if self._pods.pop(uid, None) is not None:
                self._on_change(uid)
            return
        boxes.sort(key=lambda box: (box.attempt, box.created_at_ns), reverse=True)
        containers.sort(key=lambda c: (c.attempt, c.created_at_ns), reverse=True)
        before = self._pods.get(uid)
        namespace, name = self._who(uid, before)
        pod = PodObservation(uid, namespace, name, tuple(boxes), tuple(containers))
        if pod != before:
            self._pods[uid] = pod
            self._on_change(uid)

    def _who(self, uid: str, before: PodObservation | None) -> tuple[str, str]:
        listed = next((s for s, _ in self._sandboxes.values() if s.metadata.uid == uid), None)
        if listed is not None:
            return listed.metadata.namespace, listed.metadata.name
        return (before.namespace, before.name) if before is not None else ("", "")

    async def _termination_message(self, status: cri.ContainerStatus) -> str:
        if labels.phase_of(status.state) is not ContainerPhase.EXITED:
            return ""
        path = status.annotations.get(labels.MESSAGE_PATH, "")
        host = next((m.host_path for m in status.mounts if m.container_path == path), "")
        fallback = status.annotations.get(labels.MESSAGE_POLICY) == "FallbackToLogsOnError" and status.exit_code != 0
        return await to_thread(termination_message, host, status.log_path if fallback else "")


def termination_message(path: str, log_path: str) -> str:
    """What a container left in its message file, else the end of its log if a path is given. Blocks."""
    text = _tail(path, MAX_MESSAGE_BYTES)
    if text or not log_path:
        return text
    lines = _tail(log_path, 64 * 1024).splitlines()[-FALLBACK_LINES:]
    plain = "\n".join(line.split(" ", 3)[3] for line in lines if line.count(" ") >= 3)
    return plain[-FALLBACK_BYTES:]


def _tail(path: str, size: int) -> str:
    if not path:
        return ""
    try:
        with Path(path).open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - size))
            return stream.read(size).decode(errors="replace")
    except OSError:
        return ""  # the container's file is gone: there is no message


def _unheard(_seconds: float) -> None:
    """Nobody counts."""
