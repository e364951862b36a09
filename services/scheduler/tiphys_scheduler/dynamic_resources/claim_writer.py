"""Writes what was chosen into claims before a pod is bound, and takes it out again where the pod will not come.

Each claim is read before it is written, so that a crash between two writes, or another scheduler, does no harm: what
is there already is kept, and what another has changed is a fault of this try, not of the claim.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tiphys.api.resource.v1.resource_pb2 import ResourceClaim
from tiphys_apimachinery.errors import APIError, Conflict, NotFound
from tiphys_apimachinery.meta import has_finalizer, is_being_deleted, join_key, split_key
from tiphys_apimachinery.resource_claims import ALLOCATED_FINALIZER, MOST_RESERVATIONS, is_reserved_for
from tiphys_client.client import Client
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_scheduler.dynamic_resources.state import ClaimView, Devices, claim_view
from tiphys_scheduler.pod_info import PodInfo

_log = get_logger("scheduler.claims")
_TRIES: Final = 5
_RETRY_S: Final = (0.1, 10.0)


@dataclass(frozen=True, slots=True)
class _Release:
    claim: str
    pod_uid: str


class ClaimWriter:
    """Reserves claims for pods; `run` must be running for what is to be released."""

    def __init__(
        self, client: Client, clock: Clock, devices: Devices, told: Callable[[str, ClaimView | None], None]
    ) -> None:
        """told hears the key of a claim that was written, and how it was known before."""
        self._client, self._clock, self._devices, self._told = client, clock, devices, told
        self._todo: deque[_Release] = deque()
        self._has_work = asyncio.Event()

    async def reserve(self, pod: PodInfo, claim: str) -> str:
        """Writes the devices promised for a claim and reserves it for the pod; why it can't be, else empty."""
        namespace, name = split_key(claim)
        for _ in range(_TRIES):
            try:
                current = await self._client.get(ResourceClaim, name, namespace)
                why = await self._write(pod, claim, current)
            except Conflict:
                continue
            except NotFound:
                return f'resourceclaim "{name}" is gone'
            if not why:
                self._devices.forget(claim, pod.uid)
            return why
        return f'resourceclaim "{name}" is being changed by others all the time'

    async def _write(self, pod: PodInfo, key: str, current: ResourceClaim) -> str:
        name, promise = current.metadata.name, self._devices.promised(key)
        if promise is not None and promise.pod_uid != pod.uid:
            promise = None
        if is_being_deleted(current) or (promise is not None and promise.claim_uid != current.metadata.uid):
            return f'resourceclaim "{name}" is being deleted'
        if is_reserved_for(current, pod.uid):
            return ""
        if current.status.HasField("allocation"):
            if promise is not None:
                return f'resourceclaim "{name}" got other devices meanwhile'
        elif promise is None:
            return f'resourceclaim "{name}" has lost its devices meanwhile'
        else:
            if not has_finalizer(current, ALLOCATED_FINALIZER):
                # First: a claim that is allocated must not vanish before its devices are free.
                current.metadata.finalizers.append(ALLOCATED_FINALIZER)
                current = await self._client.update(current)
            current.status.allocation.CopyFrom(promise.allocation)
        if len(current.status.reservedFor) >= MOST_RESERVATIONS:
            return f'resourceclaim "{name}" is in use'
        current.status.reservedFor.add(resource="pods", name=pod.name, uid=pod.uid)
        self._note(await self._client.update_status(current))
        return ""

    def release(self, claim: str, pod_uid: str) -> None:
        """Have the pod's reservation taken back, and the devices too where nobody else uses them. Never waits."""
        self._todo.append(_Release(claim, pod_uid))
        self._has_work.set()

    async def run(self) -> None:
        """Releases until cancelled."""
        retry = Backoff(*_RETRY_S)
        while True:
            await self._has_work.wait()
            if not self._todo:
                self._has_work.clear()
                continue
            item = self._todo[0]
            try:
                await self._release(item)
            except Conflict:
                continue
            except APIError as err:
                _log.warning("claim not released, will retry", claim=item.claim, err=str(err))
                await self._clock.sleep(retry.next())
                continue
            retry.reset()
            self._todo.popleft()

    async def _release(self, item: _Release) -> None:
        namespace, name = split_key(item.claim)
        try:
            current = await self._client.get(ResourceClaim, name, namespace)
        except NotFound:
            return
        others = [user for user in current.status.reservedFor if user.uid != item.pod_uid]
        if not current.status.HasField("allocation") or self._is_meant_for_another(item):
            return
        del current.status.reservedFor[:]
        current.status.reservedFor.extend(others)
        if not others:
            current.status.ClearField("allocation")
            del current.status.devices[:]
        try:
            self._note(await self._client.update_status(current))
        except NotFound:
            return

    def _is_meant_for_another(self, item: _Release) -> bool:
        promise = self._devices.promised(item.claim)
        return promise is not None and promise.pod_uid != item.pod_uid

    def _note(self, claim: ResourceClaim) -> None:
        """Known before the watch tells: the devices must not look free in between."""
        key = join_key(claim.metadata.namespace, claim.metadata.name)
        before = self._devices.claims.get(key)
        if self._devices.set_claim(key, claim_view(claim)):
            self._told(key, before)
