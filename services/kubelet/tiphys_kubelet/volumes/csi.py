"""CSI volumes: staged once on the node, published to each pod, and undone in reverse.

Everything done for one volume is done under one lock. Before a driver is called a note says what may come of it
(csi_disk); after it has undone all, the note goes. So nothing needs to be rebuilt after a crash: tearing down reads the
notes, and setting up calls the driver again, which finds its work done or does it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import orjson

from tiphys.api.core.v1.volume_pb2 import Volume
from tiphys.api.storage.v1.storage_pb2 import CSIDriver, VolumeAttachment
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.proc import to_thread
from tiphys_kubelet.csi.drivers import CsiDrivers, Driver
from tiphys_kubelet.csi.node_client import Capability
from tiphys_kubelet.objects import ObjectKey, attachment_name
from tiphys_kubelet.volumes.csi_disk import (
    PLUGIN_NAME,
    CsiPaths,
    VolumeData,
    publish_mount,
    read_note,
    remove_directory,
    staging_mount,
    write_note,
)
from tiphys_kubelet.volumes.csi_requests import CsiVolume, DriverAbilities, publish_request, stage_request
from tiphys_kubelet.volumes.expansion import Expander
from tiphys_kubelet.volumes.in_use import VolumesInUse
from tiphys_kubelet.volumes.interface import MountedVolume, VolumeError, VolumeMapError, VolumeRequest, VolumeWaiting
from tiphys_kubelet.volumes.keyed_locks import KeyedLocks, to_the_end
from tiphys_kubelet.volumes.mounts import mounts_below
from tiphys_kubelet.volumes.ownership import give_to_group
from tiphys_kubelet.volumes.projected import DEFAULT_TOKEN_S, RequestToken

# A growth that failed is tried again, and a driver that wants to be called again and again is.
AGAIN = timedelta(seconds=30)
COLLECT_S = 60.0
TOKENS_KEY = "csi.storage.k8s.io/serviceAccount.tokens"


@dataclass(frozen=True, slots=True)
class CsiSurroundings:
    """What the plugin works with. `fetch_attachment` asks the API server now, and raises VolumeError."""

    drivers: CsiDrivers
    paths: CsiPaths
    in_use: VolumesInUse
    expander: Expander
    request_token: RequestToken
    fetch_attachment: Callable[[str], Awaitable[VolumeAttachment | None]]
    clock: Clock


class CsiPlugin:
    """Volumes of CSI drivers, persistent and inline."""

    def __init__(self, shared: CsiSurroundings) -> None:
        self._shared = shared
        self._locks: KeyedLocks[tuple[str, str]] = KeyedLocks()
        # What this life has mounted, by its directory; the mount point was there afterwards, or never.
        self._mounted: dict[Path, bool] = {}
        self._published: dict[Path, CsiVolume] = {}
        self._wake = asyncio.Event()
        self._log = get_logger("kubelet.csi")

    @property
    def name(self) -> str:
        """Kubernetes' name of the plugin."""
        return PLUGIN_NAME

    def supports(self, volume: Volume) -> bool:
        """The volume is of a CSI driver."""
        return volume.volumeSource.HasField("csi")

    async def set_up(self, request: VolumeRequest) -> MountedVolume:
        """Stages and publishes the volume, and lets it grow. Raises VolumeError."""
        driver_name = request.volume.volumeSource.csi.driver
        spec = request.objects.get(ObjectKey(CSIDriver, "", driver_name))
        volume = CsiVolume(request, spec if isinstance(spec, CSIDriver) else None)
        volume.check_mode()
        async with self._locks.hold((volume.driver, volume.handle)):
            return await self._set_up(volume)

    async def tear_down(self, path: Path) -> None:
        """Unpublishes the volume, and unstages it if no pod of the node has it any more. Raises VolumeError."""
        note = await to_thread(read_note, path)
        if note is None:
            # No driver was called for it, or all was undone.
            await to_the_end(remove_directory, path, publish_mount(path))
            self._shared.in_use.drop(path)
            return
        async with self._locks.hold((note.driver, note.handle)):
            driver = self._driver(note.driver, "UnmountVolume.TearDown")
            await driver.client.unpublish(note.handle, str(publish_mount(path)))
            self._mounted.pop(path, None)
            self._published.pop(path, None)
            await to_the_end(remove_directory, path, publish_mount(path))
            self._shared.in_use.drop(path)
            try:
                await self._unstage_unused(note, driver)
            except (VolumeError, OSError) as err:
                # The pod has nothing of it any more and need not wait.
                self._log.warning("volume can't be unstaged, will retry", volume=note.unique_name, err=str(err))
                self.look_again()

    def published(self) -> Sequence[CsiVolume]:
        """The volumes that pods have now."""
        return tuple(self._published.values())

    def look_again(self) -> None:
        """What could not be unstaged may be now: a driver has come."""
        self._wake.set()

    async def run(self) -> None:
        """Unstages what no pod has any more, where a crash or a fault came between its last unpublish and that."""
        backoff = Backoff(1.0, 60.0)
        while True:
            done = await self.collect()
            if done:
                backoff.reset()
            delay_s = COLLECT_S if done else backoff.next()
            timer = self._shared.clock.call_later(delay_s, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()
            self._wake.clear()

    async def collect(self) -> bool:
        """Unstages all that is unused; false if some could not be."""
        staged = await to_thread(lambda: tuple(self._shared.paths.staged()))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._collect(note)) for _, note in staged]
        self._sweep(await to_thread(self._shared.paths.empty))
        return all(task.result() for task in tasks)

    def _sweep(self, directories: Iterable[Path]) -> None:
        """Remove what holds nothing, but for volumes that are being worked on: their note is about to come."""
        busy = {self._shared.paths.staging(driver, handle) for driver, handle in self._locks.held()}
        for directory in directories:
            if directory not in busy:
                with contextlib.suppress(OSError):
                    # Not empty, or gone: nothing of ours to remove.
                    directory.rmdir()

    async def _collect(self, note: VolumeData) -> bool:
        if await to_thread(self._shared.paths.is_used, note.driver, note.handle):
            return True
        try:
            async with self._locks.hold((note.driver, note.handle)):
                await self._unstage_unused(note, self._shared.drivers.get(note.driver))
        except (VolumeError, OSError) as err:
            self._log.debug("volume can't be unstaged, will retry", volume=note.unique_name, err=str(err))
            return False
        return True

    async def _set_up(self, volume: CsiVolume) -> MountedVolume:
        request, place = volume.request, publish_mount(volume.request.path)
        mounted = MountedVolume(place, read_only=volume.read_only, is_device=volume.is_device)
        driver = self._driver(volume.driver, "MountVolume.SetUp")
        abilities = DriverAbilities(
            fine_modes=await driver.can(Capability.SINGLE_NODE_MULTI_WRITER),
            mount_group=await driver.can(Capability.VOLUME_MOUNT_GROUP),
        )
        stages = not volume.is_ephemeral and await driver.can(Capability.STAGE_UNSTAGE_VOLUME)
        staging = self._shared.paths.staging(volume.driver, volume.handle) if stages else None
        republishes = volume.spec is not None and volume.spec.spec.requiresRepublish
        if republishes or not await self._is_mounted(request.path):
            await self._mount(volume, driver, abilities, staging)
        self._published[request.path] = volume
        grown = await self._shared.expander.ensure(volume, driver, abilities, staging)
        if grown and not republishes:
            return mounted
        return replace(mounted, refresh_at=self._shared.clock.now() + AGAIN)

    async def _mount(self, volume: CsiVolume, driver: Driver, abilities: DriverAbilities, staging: Path | None) -> None:
        path = volume.request.path
        fresh = path not in self._mounted
        await to_thread(path.mkdir, mode=0o750, parents=True, exist_ok=True)
        attachment = ""
        context: Mapping[str, str] = {}
        if volume.needs_attachment:
            attachment = attachment_name(volume.handle, volume.driver, volume.request.pod.spec.nodeName)
            context = await self._attached(volume, attachment)
        note = volume.note(attachment)
        # A missing secret or token must not leave a note: nothing was asked of the driver yet.
        request = publish_request(volume, staging, context, abilities)
        request.volume_context.update(await self._tokens(volume))
        stage = stage_request(volume, staging, context, abilities) if staging is not None else None
        await to_the_end(write_note, path, note)
        if staging is not None and stage is not None and not await self._is_mounted(staging):
            if attachment:
                self._shared.in_use.keep(staging, note.unique_name)
            await to_the_end(write_note, staging, note)
            await to_thread(staging_mount(staging).mkdir, mode=0o750, exist_ok=True)
            await _at_step(volume.staging_step, driver.client.stage(stage))
            await self._remember(staging, staging_mount(staging))
        await _at_step(volume.publishing_step, driver.client.publish(request))
        group = volume.request.fs_group
        if fresh and group is not None and not abilities.mount_group and volume.applies_group():
            policy = volume.request.pod.spec.securityContext.fsGroupChangePolicy
            await to_thread(give_to_group, publish_mount(path), group, only_on_mismatch=policy == "OnRootMismatch")
        await self._remember(path, publish_mount(path))

    async def _attached(self, volume: CsiVolume, name: str) -> Mapping[str, str]:
        """What the attachment tells the node. Raises VolumeWaiting while the volume is not attached."""
        unique = volume.note(name).unique_name
        await self._shared.in_use.hold(volume.request.path, unique)
        # Asked for now: what was known may be of a time before the volume was said to be in use.
        attachment = await self._shared.fetch_attachment(name)
        if attachment is None or attachment.metadata.HasField("deletionTimestamp"):
            raise VolumeWaiting(f"volume {volume.handle} is not attached to node {volume.request.pod.spec.nodeName}")
        if not attachment.status.attached:
            told = attachment.status.attachError.message or "it is being attached"
            raise VolumeWaiting(f"volume {volume.handle} has not been attached: {told}")
        return dict(attachment.status.attachmentMetadata)

    async def _tokens(self, volume: CsiVolume) -> dict[str, str]:
        """The tokens of the pod that the driver asks for."""
        if volume.spec is None or not volume.spec.spec.tokenRequests:
            return {}
        tokens = {}
        for wanted in volume.spec.spec.tokenRequests:
            lifetime_s = wanted.expirationSeconds if wanted.HasField("expirationSeconds") else DEFAULT_TOKEN_S
            token = await self._shared.request_token(volume.request.pod, wanted.audience, lifetime_s)
            expires = token.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ")
            tokens[wanted.audience] = {"token": token.value, "expirationTimestamp": expires}
        return {TOKENS_KEY: orjson.dumps(tokens).decode()}

    async def _unstage_unused(self, note: VolumeData, driver: Driver) -> None:
        paths = self._shared.paths
        directory = paths.staging(note.driver, note.handle)
        if not await to_thread(directory.is_dir) or await to_thread(paths.is_used, note.driver, note.handle):
            return
        if await to_thread(read_note, directory) is not None:
            unstaging = driver.client.unstage(note.handle, str(staging_mount(directory)))
            await _at_step("UnmountVolume.UnmountDevice", unstaging)
        self._mounted.pop(directory, None)
        await to_the_end(remove_directory, directory, staging_mount(directory))
        self._shared.in_use.drop(directory)

    async def _is_mounted(self, directory: Path) -> bool:
        """This life has mounted it, and nobody has taken the mount off since."""
        had_point = self._mounted.get(directory)
        if not had_point:
            return had_point is not None
        return bool(await to_thread(mounts_below, directory))

    async def _remember(self, directory: Path, mount: Path) -> None:
        self._mounted[directory] = bool(await to_thread(mounts_below, mount))

    def _driver(self, name: str, step: str) -> Driver:
        try:
            return self._shared.drivers.get(name)
        except VolumeError as err:
            err.step = step
            raise


async def _at_step(step: str, work: Awaitable[None]) -> None:
    """The work, whose error tells at which step it came."""
    try:
        await work
    except VolumeError as err:
        err.step = step
        err.reason = VolumeMapError.reason if step.startswith("MapVolume") else err.reason
        raise
