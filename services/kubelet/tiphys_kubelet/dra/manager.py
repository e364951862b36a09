"""The claims of this node: prepared by their drivers before a sandbox is made, given up when its containers end.

What is asked of drivers is on the disk before they are asked. So a kubelet that is killed at any moment neither
forgets devices nor takes them away from a pod that runs.
Source: kubernetes pkg/kubelet/cm/dra.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from tiphys.api.core.v1.container_pb2 import Container, ResourceStatus
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.resource.v1.resource_pb2 import ResourceClaim
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_apimachinery.errors import APIError
from tiphys_apimachinery.resource_claims import PodClaim, is_reserved_for, pod_claims
from tiphys_component.log import get_logger
from tiphys_component.proc import to_thread
from tiphys_kubelet.api import ApiClient
from tiphys_kubelet.dra import prepared
from tiphys_kubelet.dra.drivers import DraDrivers, DriverError
from tiphys_kubelet.dra.prepared import CorruptState, PreparedClaim
from tiphys_kubelet.resources.checkpoint import replace_file
from tiphys_kubelet.resources.grants import DeviceGrant
from tiphys_kubelet.resources.interface import PodDevices
from tiphys_kubelet.volumes.keyed_locks import KeyedLocks


class ClaimsNotReady(Exception):
    """A pod's claims can't be prepared, or given up, now; it is tried again."""


class PodClaims(Protocol):
    """Claims of pods, as workers use them."""

    async def prepare(self, pod: Pod) -> None:
        """Has the devices of all claims made ready; repeating it costs nothing. Raises ClaimsNotReady and OSError."""

    async def release(self, pod_uid: str) -> None:
        """Gives up what was prepared for the pod alone; may be repeated. Raises ClaimsNotReady and OSError."""

    def owners(self) -> Collection[str]:
        """Uids of the pods for which something is prepared."""


class NoClaims:
    """A node without DRA."""

    async def prepare(self, pod: Pod) -> None:
        """Nothing is made ready."""

    async def release(self, pod_uid: str) -> None:
        """Nothing is held."""

    def owners(self) -> Collection[str]:
        """Nobody."""
        return ()


class ClaimManager:
    """Claims of one node; `load` before anything else."""

    def __init__(self, folder: Path, client: ApiClient, drivers: DraDrivers) -> None:
        self._path = folder / prepared.FILE_NAME
        self._client = client
        self._drivers = drivers
        self._claims: dict[str, PreparedClaim] = {}
        # One pod at a time works on a claim; uids are locked in their order.
        self._locks: KeyedLocks[str] = KeyedLocks()
        self._writing = asyncio.Lock()
        self._log = get_logger("kubelet.claims")

    async def load(self) -> None:
        """Reads what is prepared. A file that can't be understood is put aside. Raises OSError."""
        try:
            known = await to_thread(prepared.read, self._path)
        except CorruptState as err:
            aside = self._path.with_name(f"{self._path.name}.corrupt")
            await to_thread(self._path.replace, aside)
            self._log.error("state of claims is corrupt, put aside", path=str(aside), err=str(err))
            known = []
        # The machine may have started anew, and what drivers had set up be gone: they are asked again.
        self._claims = {claim.uid: replace(claim, devices={}) for claim in known}

    def owners(self) -> Collection[str]:
        """Uids of the pods for which something is prepared."""
        return frozenset(uid for claim in self._claims.values() for uid in claim.pods)

    def of_pod(self, pod: Pod) -> dict[str, PreparedClaim]:
        """What is prepared for a pod, by the claims' names in it."""
        uid, namespace = pod.metadata.uid, pod.metadata.namespace
        known = {(c.namespace, c.name): c for c in self._claims.values() if uid in c.pods and c.is_ready}
        return {item.name: known[namespace, item.claim] for item in pod_claims(pod) if (namespace, item.claim) in known}

    async def prepare(self, pod: Pod) -> None:
        """Has the devices of all claims made ready. Raises ClaimsNotReady and OSError."""
        if not pod.spec.resourceClaims:
            return
        wanted = list(pod_claims(pod))
        if len(self.of_pod(pod)) == len(wanted):
            return
        stored = [await self._read(pod, item) for item in wanted]
        missing = {r.driver for claim in stored for r in claim.status.allocation.devices.results} - set(self._drivers)
        if missing:
            # Before anything is noted: what no driver has heard of need not be given up by one.
            raise ClaimsNotReady(f"DRA driver {min(missing)} is not registered")
        async with self._locked([claim.metadata.uid for claim in stored]):
            for claim in stored:
                known = self._claims.get(claim.metadata.uid) or _unprepared(claim)
                self._claims[known.uid] = known.with_pod(pod.metadata.uid)
            await self._save()
            try:
                await self._ask_drivers([claim.metadata.uid for claim in stored])
            except DriverError as err:
                raise ClaimsNotReady(str(err)) from err
            finally:
                await self._save()

    async def release(self, pod_uid: str) -> None:
        """Gives up what was prepared for the pod alone. Raises ClaimsNotReady and OSError."""
        uids = [claim.uid for claim in self._claims.values() if pod_uid in claim.pods]
        if not uids:
            return
        async with self._locked(uids):
            try:
                for uid in uids:
                    await self._release(uid, pod_uid)
            except DriverError as err:
                raise ClaimsNotReady(str(err)) from err
            finally:
                await self._save()

    def cdi_devices(self, pod: Pod, container: Container) -> Sequence[cri.CDIDevice]:
        """The devices that a container is to be made with."""
        if not container.resources.claims:
            return ()
        claims = self.of_pod(pod)
        ids = dict.fromkeys(
            one for named in container.resources.claims if named.name in claims
            for one in claims[named.name].cdi_ids(named.request)
        )  # fmt: skip
        return tuple(cri.CDIDevice(name=one) for one in ids)

    async def _read(self, pod: Pod, item: PodClaim) -> ResourceClaim:
        if not item.claim:
            raise ClaimsNotReady(f"ResourceClaim for {item.name} not created yet")
        try:
            claim = await self._client.get(ResourceClaim, item.claim, pod.metadata.namespace)
        except APIError as err:
            raise ClaimsNotReady(f"failed to fetch ResourceClaim {item.claim} referenced by pod: {err}") from err
        if not claim.status.HasField("allocation"):
            raise ClaimsNotReady(f"ResourceClaim {item.claim} is not allocated")
        if not is_reserved_for(claim, pod.metadata.uid):
            raise ClaimsNotReady(f"pod {pod.metadata.name} is not allowed to use ResourceClaim {item.claim}")
        return claim

    async def _ask_drivers(self, uids: Sequence[str]) -> None:
        """Each driver once, for all claims that it has not answered for. Raises DriverError after having asked all."""
        todo: dict[str, list[PreparedClaim]] = {}
        for uid in uids:
            claim = self._claims[uid]
            for driver in claim.drivers:
                if driver not in claim.devices:
                    todo.setdefault(driver, []).append(claim)
        fault: DriverError | None = None
        for driver, claims in todo.items():
            try:
                answers = await self._drivers.prepare(driver, claims)
            except DriverError as err:
                fault = err
                continue
            for uid, answer in answers.items():
                if isinstance(answer, DriverError):
                    fault = answer
                else:
                    self._claims[uid] = self._claims[uid].with_devices(driver, answer)
        if fault is not None:
            raise fault

    async def _release(self, uid: str, pod_uid: str) -> None:
        claim = self._claims.get(uid)
        if claim is None or pod_uid not in claim.pods:
            return
        if len(claim.pods) == 1:
            for driver in claim.drivers:
                await self._drivers.unprepare(driver, claim)
            del self._claims[uid]
        else:
            self._claims[uid] = claim.without_pod(pod_uid)

    @asynccontextmanager
    async def _locked(self, uids: Sequence[str]) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for uid in sorted(set(uids)):
                await stack.enter_async_context(self._locks.hold(uid))
            yield

    async def _save(self) -> None:
        async with self._writing:
            await to_thread(replace_file, self._path, prepared.encode(self._claims.values()))


class WithClaims:
    """Devices of plugins and of claims in one, as containers' starts ask for them."""

    def __init__(self, devices: PodDevices, claims: ClaimManager) -> None:
        self._devices, self._claims = devices, claims

    async def allocate(self, pod: Pod, running: Collection[str] = ()) -> None:
        """Devices of plugins only: claims were given theirs by the scheduler."""
        await self._devices.allocate(pod, running)

    async def prepare(self, pod: Pod, container: Container) -> DeviceGrant:
        """What a container is made with."""
        grant = await self._devices.prepare(pod, container)
        claimed = self._claims.cdi_devices(pod, container)
        return replace(grant, cdi_devices=(*grant.cdi_devices, *claimed)) if claimed else grant

    def release(self, pod_uid: str) -> None:
        """Devices of plugins only."""
        self._devices.release(pod_uid)

    def owners(self) -> Collection[str]:
        """Uids of the pods that hold devices of plugins."""
        return self._devices.owners()

    def health(self, pod: Pod) -> Mapping[str, Sequence[ResourceStatus]]:
        """The health of each container's devices."""
        return self._devices.health(pod)


def _unprepared(claim: ResourceClaim) -> PreparedClaim:
    drivers = dict.fromkeys(result.driver for result in claim.status.allocation.devices.results)
    meta = claim.metadata
    return PreparedClaim(meta.namespace, meta.name, meta.uid, frozenset(), tuple(drivers), {})
