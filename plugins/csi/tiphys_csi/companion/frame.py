"""The frame of the companion's rooms: shared informers, a queue and workers for each, retries that drivers reset."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from tiphys.api.core.v1 import persistent_volume_claim_pb2, persistent_volume_pb2, secret_pb2
from tiphys.api.storage.v1 import storage_pb2
from tiphys_apimachinery.errors import ServiceUnavailable
from tiphys_apimachinery.meta import namespaced_name
from tiphys_client.client import Client
from tiphys_client.controller import Controller, RequeueAfter
from tiphys_client.informer import Informer
from tiphys_client.rate_limiter import ItemBackoff
from tiphys_client.recorder import EventRecorder
from tiphys_client.shared_informers import SharedInformers
from tiphys_client.workqueue import RateLimitingQueue
from tiphys_client.workqueue_metrics import WorkMetrics
from tiphys_component.clock import Clock
from tiphys_csi.companion.driver import Setback
from tiphys_csi.companion.drivers import Drivers
from tiphys_csi.companion.duty import Duty

Claim = persistent_volume_claim_pb2.PersistentVolumeClaim
PersistentVolume = persistent_volume_pb2.PersistentVolume
ATTACHMENTS_BY_VOLUME = "volume"
_CALLS_OF_A_ROUND = 4


class Informers:
    """The kinds that rooms look at."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._shared = SharedInformers(client, clock)
        self.claims: Informer[Claim, Any] = self._shared.informer(Claim)
        self.volumes: Informer[PersistentVolume, Any] = self._shared.informer(PersistentVolume)
        self.classes: Informer[storage_pb2.StorageClass, Any] = self._shared.informer(storage_pb2.StorageClass)
        self.attachments: Informer[storage_pb2.VolumeAttachment, Any] = self._shared.informer(
            storage_pb2.VolumeAttachment, indexes={ATTACHMENTS_BY_VOLUME: _volume_of}
        )
        self.csi_nodes: Informer[storage_pb2.CSINode, Any] = self._shared.informer(storage_pb2.CSINode)

    async def run(self) -> None:
        """Keep all copies true until cancelled."""
        await self._shared.run()

    async def wait_synced(self) -> None:
        """Return when all have their first list."""
        await self._shared.wait_synced()

    def is_synced(self) -> bool:
        """Whether all have their first list."""
        return self._shared.is_synced()


def _volume_of(attachment: storage_pb2.VolumeAttachment) -> Iterable[str]:
    name = attachment.spec.source.persistentVolumeName
    return (name,) if name else ()


@dataclass(frozen=True, slots=True)
class Context:
    """What every room works with."""

    client: Client
    informers: Informers
    drivers: Drivers
    duty: Duty
    events: EventRecorder
    clock: Clock

    async def secrets(self, reference: tuple[str, str] | None) -> dict[str, str]:
        """The values of a secret by namespace and name; none for none. Raises APIError."""
        if reference is None:
            return {}
        namespace, name = reference
        secret = await self.client.get(secret_pb2.Secret, name, namespace)
        return {key: value.decode(errors="replace") for key, value in secret.data.items()}


class Room(Protocol):
    """One part of the companion's work. name is also its queue's and its metrics'."""

    name: str

    def watch(self, queue: RateLimitingQueue[str]) -> None:
        """Add handlers to informers that fill the queue."""

    def all_keys(self) -> Iterable[str]:
        """Every key there is, for when a driver came."""

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Bring what the key names nearer to what is wanted. Raises to be called again with backoff."""


class RoomLoop:
    """A room with its queue and workers. Make it before the informers run."""

    def __init__(
        self, room: Room, context: Context, metrics: WorkMetrics, *, workers: int, retry: ItemBackoff, timeout_s: float
    ) -> None:
        self._room = room
        self._clock = context.clock
        self.queue: RateLimitingQueue[str] = RateLimitingQueue(
            context.clock, limiter=retry, metrics=metrics.for_queue(room.name)
        )
        room.watch(self.queue)
        # A round makes few calls of the driver, each with a deadline of its own.
        limit_s = timeout_s * _CALLS_OF_A_ROUND
        self._controller = Controller(
            room.name, self.queue, self._reconcile, workers, metrics=metrics, timeout_s=limit_s
        )
        context.drivers.on_change(self._look_at_all)
        context.duty.on_lead(self._look_at_all)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._controller.run()

    async def _reconcile(self, key: str) -> RequeueAfter | None:
        try:
            return await self._room.reconcile(key)
        except Setback as err:
            # The frame logs a line for what may pass, and a traceback for anything else.
            raise ServiceUnavailable(str(err)) from err

    def _look_at_all(self, _driver: str) -> None:
        # What waits after failures need not wait longer: they were the driver's that is gone.
        for key in self._room.all_keys():
            self.queue.forget(key)
            self.queue.add(key)


def enqueue_own(informer: Informer[Any, Any], queue: RateLimitingQueue[str]) -> None:
    """Fill the queue with the key of every object that comes or changes."""
    informer.add_handler(
        on_add=lambda obj: queue.add(namespaced_name(obj)),
        on_update=lambda _old, new: queue.add(namespaced_name(new)),
    )
