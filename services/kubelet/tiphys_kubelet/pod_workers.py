"""The workers of all pods of the node, and what tells them that something happened."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_component.log import get_logger
from tiphys_kubelet.dra.manager import ClaimsNotReady
from tiphys_kubelet.pod_worker import PodWorker, Surroundings
from tiphys_kubelet.resources.allocation import demands
from tiphys_kubelet.runtime.labels import pod_from_sandbox
from tiphys_kubelet.volumes.interface import VolumeError


class PodWorkers:
    """Workers by pod uid; `run` must be running, and the runtime's picture complete, before the first update."""

    def __init__(self, shared: Surroundings) -> None:
        self._shared = shared
        self._workers: dict[str, PodWorker] = {}
        # Pods that have ended here but whose objects others still hold by finalizers.
        self._finished: set[str] = set()
        self._group: asyncio.TaskGroup | None = None
        self._log = get_logger("kubelet.workers")

    async def run(self) -> None:
        """Owns the workers' tasks."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await asyncio.Event().wait()

    def update(self, pod: Pod) -> None:
        """A pod of this node is new or changed."""
        uid = pod.metadata.uid
        if uid in self._finished:
            return
        worker = self._workers.get(uid)
        if worker is None:
            self._begin(PodWorker(pod, self._shared))
        else:
            worker.update(pod)

    def remove(self, uid: str) -> None:
        """The API has no such pod any more."""
        self._finished.discard(uid)
        worker = self._workers.get(uid)
        if worker is not None:
            worker.remove()

    def observed(self, uid: str) -> None:
        """The runtime's picture of a pod, or a verdict of its probes, changed."""
        worker = self._workers.get(uid)
        if worker is not None:
            worker.observed()

    def objects_changed(self, uid: str) -> None:
        """An object that a pod refers to changed."""
        worker = self._workers.get(uid)
        if worker is not None:
            worker.objects_changed()

    def resized(self, uid: str) -> None:
        """A pod was given the resources that it waited for."""
        worker = self._workers.get(uid)
        if worker is not None:
            worker.resized()

    def devices_changed(self, resource: str) -> None:
        """Devices of a resource came, went or changed."""
        for worker in self._workers.values():
            if any(demand.resource == resource for demand in demands(worker.pod)):
                worker.devices_changed()

    def drivers_changed(self) -> None:
        """A DRA driver came: pods that wait for one go on."""
        for worker in self._workers.values():
            if worker.pod.spec.resourceClaims:
                worker.devices_changed()

    def get(self, uid: str) -> PodWorker | None:
        """The worker of a pod."""
        return self._workers.get(uid)

    def workers(self) -> tuple[PodWorker, ...]:
        """All workers."""
        return tuple(self._workers.values())

    async def end_orphans(self, known: Collection[str]) -> None:
        """Ends pods that the runtime has and the API does not, and removes directories of pods that are gone."""
        for observed in self._shared.lifecycle.observations():
            if observed.uid in known or observed.uid in self._workers:
                continue
            sandbox = self._shared.lifecycle.sandbox_of(observed.uid)
            pod = pod_from_sandbox(sandbox) if sandbox is not None else Pod()
            pod.metadata.uid = observed.uid
            self._log.info("ending a pod that the API does not know", pod=f"{observed.namespace}/{observed.name}")
            worker = PodWorker(pod, self._shared)
            worker.remove()
            self._begin(worker)
        async with asyncio.TaskGroup() as group:
            for uid in self._shared.volumes.uids():
                if uid not in known and uid not in self._workers:
                    group.create_task(self._tear_down(uid))
        self._shared.resizes.keep_only(known)
        for uid in self._shared.devices.owners():
            if uid not in known and uid not in self._workers:
                self._shared.devices.release(uid)

        for uid in self._shared.claims.owners():
            if uid not in known and uid not in self._workers:
                await self._give_up_claims(uid)

    async def _give_up_claims(self, uid: str) -> None:
        try:
            await self._shared.claims.release(uid)
        except (ClaimsNotReady, OSError) as err:
            self._log.warning("claims of a pod that is gone are still prepared, will retry", uid=uid, err=str(err))

    async def _tear_down(self, uid: str) -> None:
        try:
            await self._shared.volumes.tear_down(uid)
        except (VolumeError, OSError) as err:
            self._log.warning("volumes of a pod that is gone are still there, will retry", uid=uid, err=str(err))

    def _begin(self, worker: PodWorker) -> None:
        if self._group is None:
            raise RuntimeError("pod workers are not running")
        uid = worker.pod.metadata.uid
        self._workers[uid] = worker
        self._group.create_task(self._work(uid, worker), name=f"pod {worker.pod.metadata.name}")

    async def _work(self, uid: str, worker: PodWorker) -> None:
        try:
            await worker.run()
        finally:
            del self._workers[uid]
        if worker.pod.metadata.finalizers:
            self._finished.add(uid)
