"""Writes what was chosen for a pod's claims and waits until they are bound, while other pods go on being placed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.reference_pb2 import ObjectReference
from tiphys_apimachinery.errors import APIError
from tiphys_apimachinery.meta import resource_version, split_key
from tiphys_apimachinery.persistent_volumes import BOUND_BY_CONTROLLER, SELECTED_NODE
from tiphys_client.client import Client
from tiphys_component.app import start_loop
from tiphys_component.clock import Clock
from tiphys_scheduler.scheduling_queue import Waiting
from tiphys_scheduler.volumes import Decisions, StorageInformers, Volumes

# Source: kube-scheduler VolumeBindingArgs.bindTimeoutSeconds.
TIMEOUT_S: Final = 600.0
_TICK_S: Final = 1.0
_WORKERS: Final = 4


@dataclass(slots=True)
class Pending:
    """A pod whose volumes are on their way. versions are those of the claims as written: an older view says nothing."""

    waiting: Waiting
    decisions: Decisions
    deadline_s: float
    is_written: bool = False
    versions: dict[str, int] = field(default_factory=dict)


class VolumeBinder:
    """Reports each pod exactly once to `done`, with an empty text where its volumes are bound; unless it is dropped."""

    def __init__(
        self,
        client: Client,
        informers: StorageInformers,
        volumes: Volumes,
        *,
        clock: Clock,
        done: Callable[[Pending, str], None],
    ) -> None:
        self._client = client
        self._informers = informers
        self._volumes = volumes
        self._clock = clock
        self._done = done
        self._pending: dict[str, Pending] = {}
        self._by_claim: dict[str, set[str]] = {}
        self._todo: deque[Pending] = deque()
        self._has_work = asyncio.Event()

    def add(self, waiting: Waiting, decisions: Decisions) -> None:
        """Have it written."""
        pending = Pending(waiting, decisions, self._clock.monotonic() + TIMEOUT_S)
        self._pending[waiting.pod.key] = pending
        for claim in decisions.claims:
            self._by_claim.setdefault(claim, set()).add(waiting.pod.key)
        self._todo.append(pending)
        self._has_work.set()

    def drop(self, key: str) -> Pending | None:
        """Stop waiting for a pod that is gone; what was chosen for it, None where it was not here."""
        pending = self._pending.pop(key, None)
        if pending is not None:
            for claim in pending.decisions.claims:
                keys = self._by_claim[claim]
                keys.discard(key)
                if not keys:
                    del self._by_claim[claim]
        return pending

    def claim_changed(self, claim: str) -> None:
        """Look again at the pods that wait for this claim."""
        for key in list(self._by_claim.get(claim, ())):
            self._check(self._pending[key])

    async def run(self) -> None:
        """Write and wait until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(_WORKERS):
                start_loop(group, self._work(), f"volume binder {number}")
            start_loop(group, self._watch_deadlines(), "volume binder deadlines")

    async def _work(self) -> None:
        while True:
            await self._has_work.wait()
            if not self._todo:
                self._has_work.clear()
                continue
            pending = self._todo.popleft()
            try:
                await self._write(pending)
            except APIError as err:
                self._end(pending, str(err))
                continue
            pending.is_written = True
            self._check(pending)

    async def _watch_deadlines(self) -> None:
        while True:
            await self._clock.sleep(_TICK_S)
            now = self._clock.monotonic()
            for pending in [item for item in self._pending.values() if item.deadline_s <= now]:
                self._end(pending, "timed out waiting for the condition")

    async def _write(self, pending: Pending) -> None:
        """Volumes name their claims, and claims their node: each a write that a crash may repeat."""
        for claim, name in pending.decisions.reservations:
            volume = self._informers.volumes.get(name)
            view = self._volumes.claims.get(claim)
            if volume is None or view is None or (volume.spec.claimRef.uid == view.uid and view.uid):
                continue
            if not volume.spec.HasField("claimRef"):
                volume.metadata.annotations[BOUND_BY_CONTROLLER] = "yes"
            volume.spec.claimRef.CopyFrom(
                ObjectReference(
                    kind="PersistentVolumeClaim",
                    apiVersion="v1",
                    namespace=view.namespace,
                    name=view.name,
                    uid=view.uid,
                    resourceVersion=view.resource_version,
                )
            )
            await self._client.update(volume)
        for claim in pending.decisions.provisions:
            view = self._volumes.claims.get(claim)
            if view is None or view.selected_node == pending.decisions.node:
                continue
            namespace, name = split_key(claim)
            patch = {"metadata": {"uid": view.uid, "annotations": {SELECTED_NODE: pending.decisions.node}}}
            stored = await self._client.patch(PersistentVolumeClaim, name, namespace, patch)
            pending.versions[claim] = resource_version(stored)

    def _check(self, pending: Pending) -> None:
        if not pending.is_written or self._pending.get(pending.waiting.pod.key) is not pending:
            return
        left = False
        for key in pending.decisions.claims:
            claim = self._volumes.claims.get(key)
            if claim is None or claim.is_deleting:
                self._end(pending, f'persistentvolumeclaim "{key.partition("/")[2]}" is gone or being deleted')
                return
            if claim.is_bound:
                continue
            left = True
            is_shown = int(claim.resource_version or 0) >= pending.versions.get(key, 0)
            if key in pending.decisions.provisions and is_shown and claim.selected_node != pending.decisions.node:
                # The provisioner gave up on this node: another may do.
                self._end(pending, f'provisioning failed for PVC "{claim.name}"')
                return
        if not left:
            self._end(pending, "")

    def _end(self, pending: Pending, fault: str) -> None:
        if self._pending.get(pending.waiting.pod.key) is pending:
            self.drop(pending.waiting.pod.key)
            self._done(pending, fault)
