"""Tells the kernel of a resize, step by step, and looks at what became of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.proc import to_thread
from tiphys_cri.errors import CRIError
from tiphys_cri.interface import RuntimeService
from tiphys_kubelet.observation import ContainerObservation
from tiphys_kubelet.pleg import PodLifecycle
from tiphys_kubelet.resizing.actuation import SetPodLimits, Step, StopForResize, UpdateContainer, plan_steps
from tiphys_kubelet.resizing.metrics import ResizeMetrics
from tiphys_kubelet.resizing.resizes import Resizes
from tiphys_kubelet.runtime.cgroups import Cgroups
from tiphys_kubelet.runtime.limits import Limits

RETRY_S = 5.0

# Stops one container of the pod, with its grace period.
Stop = Callable[[ContainerObservation], Awaitable[None]]


class CannotShrink(Exception):
    """More memory is in use than there is to be."""


@dataclass(slots=True)
class Actuator:
    """The hands of a resize. groups is None where pods' groups are the runtime's own affair."""

    resizes: Resizes
    runtime: RuntimeService
    lifecycle: PodLifecycle
    clock: Clock
    metrics: ResizeMetrics
    groups: Cgroups | None = None

    async def bring(self, pod: Pod, stop: Stop, report: Callable[[], None], restarting: Collection[str]) -> bool:
        """Gives the pod what is set aside for it; False where that must be tried again later.

        A container that is stopped for it is left to the caller to start again: it names those in restarting. Raises
        OSError where what was granted can't be kept on the disk.
        """
        uid = pod.metadata.uid
        if not await self._steps(pod):
            self._settle(uid, restarting)
            return True
        self.resizes.begun(uid)
        report()
        await self.resizes.save()
        began = self.clock.monotonic()
        try:
            for step in await self._steps(pod):
                await self._do(pod, step, stop)
        except (CRIError, OSError, CannotShrink) as err:
            # The rest of the pod's life must not wait for it.
            self._measure(began, success=False)
            text = err.wire_text if isinstance(err, CRIError) else str(err)
            self.resizes.failed(uid, text)
            get_logger("kubelet.resize").warning("pod can't be resized, will retry", pod=pod.metadata.name, err=text)
            return False
        self._measure(began, success=True)
        self._settle(uid, restarting)
        return True

    def _settle(self, uid: str, restarting: Collection[str]) -> None:
        if not restarting:
            self.resizes.finished(uid)

    def _measure(self, began: float, *, success: bool) -> None:
        self.metrics.duration.labels(str(success).lower()).observe((self.clock.monotonic() - began) * 1000.0)

    async def _steps(self, pod: Pod) -> tuple[Step, ...]:
        group = await to_thread(self.groups.pod_limits, pod) if self.groups is not None else None
        return plan_steps(pod, self.lifecycle.observation(pod.metadata.uid), group)

    async def _do(self, pod: Pod, step: Step, stop: Stop) -> None:
        match step:
            case StopForResize(target):
                await stop(target)
            case SetPodLimits(limits) if self.groups is not None:
                await self._check_room(pod, "", limits, "pod")
                await to_thread(self.groups.set_pod_limits, pod, limits)
            case UpdateContainer(target, resource, limits):
                if step.lowers_memory:
                    await self._check_room(pod, target.id, limits, f'container "{target.name}"')
                await self.runtime.update_container_resources(target.id, limits.for_cri(resource))
                await self.lifecycle.refresh_container(target.id)

    async def _check_room(self, pod: Pod, container_id: str, limits: Limits, whose: str) -> None:
        """Raises CannotShrink rather than have the kernel kill what does not fit any more."""
        if self.groups is None or not limits.memory_bytes:
            return
        used = await to_thread(self.groups.memory_use, pod, container_id)
        if used is not None and used > limits.memory_bytes:
            raise CannotShrink(
                f"attempting to set {whose} memory limit ({limits.memory_bytes}) below current usage ({used})"
            )
