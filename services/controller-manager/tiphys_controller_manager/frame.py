"""The frame that every controller stands in: informers shared by kind, a queue, workers, and what they last did.

A controller says which kinds it watches, which of its keys a change of such an object touches, and how a key is
reconciled. All else is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeVar

from google.protobuf.message import Message

from tiphys.api.apiextensions.v1.apiextensions_pb2 import CustomResourceDefinition
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.batch.v1 import batch_pb2
from tiphys.api.core.v1 import (
    node_pb2,
    persistent_volume_claim_pb2,
    persistent_volume_pb2,
    pod_pb2,
    replication_controller_pb2,
    service_pb2,
)
from tiphys.api.discovery.v1 import discovery_pb2
from tiphys.api.policy.v1 import policy_pb2
from tiphys.api.resource.v1.resource_pb2 import ResourceClaim
from tiphys.api.storage.v1 import storage_pb2
from tiphys_apimachinery.meta import namespaced_name
from tiphys_apimachinery.persistent_volumes import claim_view, volume_view
from tiphys_apimachinery.scheme import Scheme
from tiphys_client.client import Client
from tiphys_client.controller import Controller, RequeueAfter
from tiphys_client.indexer import IndexFunc, by_namespace
from tiphys_client.informer import Informer
from tiphys_client.rest import NoPaths, PathReader
from tiphys_client.shared_informers import SharedInformers
from tiphys_client.workqueue import RateLimitingQueue
from tiphys_client.workqueue_metrics import WorkMetrics
from tiphys_component.clock import Clock
from tiphys_component.metrics import Registry
from tiphys_controller_manager.backends import SERVICE_INDEX, service_view, slice_keys
from tiphys_controller_manager.controller_metrics import ControllerMetrics
from tiphys_controller_manager.controllers.attachdetach.plan import attachment_view
from tiphys_controller_manager.controllers.disruption.plan import budget_view
from tiphys_controller_manager.custom_kinds import KIND_INDEX, definition_kind_keys
from tiphys_controller_manager.expectations import Expectations
from tiphys_controller_manager.nodes import node_view
from tiphys_controller_manager.options import Options
from tiphys_controller_manager.pods import (
    CONTROLLER_INDEX,
    NAMESPACE_INDEX,
    NODE_INDEX,
    POD_INDEXES,
    controller_keys,
    pod_view,
)
from tiphys_controller_manager.volumes import (
    CLAIM_INDEX,
    CLASS_INDEX,
    VOLUME_INDEX,
    attachment_node_keys,
    attachment_volume_keys,
    unbound_class_keys,
    volume_claim_keys,
    volume_class_keys,
)

MessageT = TypeVar("MessageT", bound=Message)

Keys = Callable[[Any, Any], Iterable[str]]
"""The keys that a change touches, from the object before and after it; one of them is None at its begin or end."""

# One projection for a kind, whoever watches it.
_PROJECTIONS: Final[Mapping[type[Message], Callable[[Any], Any]]] = {
    pod_pb2.Pod: pod_view,
    node_pb2.Node: node_view,
    service_pb2.Service: service_view,
    persistent_volume_claim_pb2.PersistentVolumeClaim: claim_view,
    persistent_volume_pb2.PersistentVolume: volume_view,
    storage_pb2.VolumeAttachment: attachment_view,
    policy_pb2.PodDisruptionBudget: budget_view,
}
_INDEXES: Final[Mapping[type[Message], Mapping[str, IndexFunc[Any]]]] = {
    pod_pb2.Pod: POD_INDEXES,
    apps_pb2.ReplicaSet: {NAMESPACE_INDEX: by_namespace, CONTROLLER_INDEX: controller_keys},
    replication_controller_pb2.ReplicationController: {
        NAMESPACE_INDEX: by_namespace,
        CONTROLLER_INDEX: controller_keys,
    },
    batch_pb2.Job: {NAMESPACE_INDEX: by_namespace, CONTROLLER_INDEX: controller_keys},
    discovery_pb2.EndpointSlice: {NAMESPACE_INDEX: by_namespace, SERVICE_INDEX: slice_keys},
    persistent_volume_claim_pb2.PersistentVolumeClaim: {
        NAMESPACE_INDEX: by_namespace,
        CONTROLLER_INDEX: controller_keys,
        CLASS_INDEX: unbound_class_keys,
    },
    persistent_volume_pb2.PersistentVolume: {CLASS_INDEX: volume_class_keys, CLAIM_INDEX: volume_claim_keys},
    CustomResourceDefinition: {KIND_INDEX: definition_kind_keys},
    storage_pb2.VolumeAttachment: {NODE_INDEX: attachment_node_keys, VOLUME_INDEX: attachment_volume_keys},
    ResourceClaim: {NAMESPACE_INDEX: by_namespace, CONTROLLER_INDEX: controller_keys},
    apps_pb2.ControllerRevision: {NAMESPACE_INDEX: by_namespace, CONTROLLER_INDEX: controller_keys},
}


class EventSink(Protocol):
    """Where a controller tells users what it did."""

    def event(self, obj: Any, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Note an event about obj; type is Normal or Warning. Returns at once and never raises."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A kind that a controller follows, or those of its objects that a field selector chooses."""

    cls: type[Message]
    keys: Keys
    field_selector: str = ""


class Reconciler(Protocol):
    """A controller's own part."""

    def watches(self) -> Iterable[Watch]:
        """The kinds it follows."""

    def first_keys(self) -> Iterable[str]:
        """Keys to look at once the informers are filled, whatever was seen."""

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Bring what the key names nearer to what is wanted. Raises to be called again with backoff."""


class Queue(Protocol):
    """The part of a work queue that a reconciler may use by itself."""

    def add(self, item: str) -> None:
        """Have the key reconciled."""

    def add_after(self, item: str, delay_s: float) -> None:
        """Have the key reconciled later."""


class EventSinks(Protocol):
    """Hands out a sink for each component."""

    def of(self, component: str) -> EventSink:
        """The sink under whose name a controller tells."""


class Informers:
    """The informers as one controller sees them: those it asked for are those it waits for."""

    def __init__(self, shared: SharedInformers) -> None:
        self._shared = shared
        self._asked: dict[Informer[Any, Any], type[Message]] = {}

    def of(self, cls: type[MessageT], namespace: str = "", *, field_selector: str = "") -> Informer[MessageT, Any]:
        """The informer of a kind, with an index by namespace and, for pods, the projection PodView."""
        informer = self._shared.informer(
            cls,
            namespace,
            field_selector=field_selector,
            projection=_PROJECTIONS.get(cls),
            indexes=_INDEXES.get(cls, {NAMESPACE_INDEX: by_namespace}),
        )
        self._asked[informer] = cls
        return informer

    def asked(self) -> list[tuple[type[Message], Informer[Any, Any]]]:
        """All of them, with their kinds."""
        return [(cls, informer) for informer, cls in self._asked.items()]

    def begin(self, cls: type[MessageT]) -> Informer[MessageT, Any]:
        """A running informer of a kind that came late; nobody waits for it. Each class belongs to one controller."""
        return self._shared.begin(cls)

    def end(self, cls: type[Message]) -> None:
        """Stop the informer of a kind that has gone."""
        self._shared.end(cls)

    async def wait_synced(self) -> None:
        """Return when all that were asked for have their first list."""
        for informer in self._asked:
            await informer.wait_synced()


@dataclass(frozen=True, slots=True)
class Context:
    """What a controller is made of; one for each controller."""

    client: Client
    informers: Informers
    clock: Clock
    events: EventSink
    options: Options
    scheme: Scheme
    # Certificates of the cluster's authority, PEM.
    authority: str
    queue: Queue
    # For groups that are served behind the API server, and have no gRPC.
    rest: PathReader
    metrics: ControllerMetrics
    # All that were made for this controller, with what they are of.
    awaited: list[tuple[type[Message], Expectations]] = field(default_factory=list)

    def expectations(self, cls: type[Message], *, field_selector: str = "") -> Expectations:
        """Expectations on the view of a kind."""
        made = Expectations(InformerView(self.informers.of(cls, field_selector=field_selector)), self.clock)
        self.awaited.append((cls, made))
        return made


class InformerView:
    """An informer as expectations see it."""

    def __init__(self, informer: Informer[Any, Any]) -> None:
        self._informer = informer

    def get(self, key: str) -> Any | None:
        """The object with this key."""
        return self._informer.get(key)

    def reached(self) -> int:
        """The version up to which the view is complete."""
        return int(self._informer.reflector.resource_version or 0)


Factory = Callable[[Context], Reconciler]


@dataclass(frozen=True, slots=True)
class ControllerSpec:
    """One line of the registry: a name as --controllers takes it, how it is made, and how many keys at once."""

    name: str
    make: Factory
    workers: int = 1
    on_by_default: bool = True
    aliases: tuple[str, ...] = ()
    # The name in its events, where it is not the controller's.
    event_source: str = ""


@dataclass(slots=True)
class Report:
    """What is to be told of a running controller."""

    reconciles: int = 0
    failures: int = 0
    last_error: str = ""
    last_error_key: str = ""
    is_running: bool = False


@dataclass(slots=True)
class Parts:
    """What all controllers of the process share."""

    client: Client
    shared: SharedInformers
    clock: Clock
    events: EventSinks
    options: Options
    scheme: Scheme
    authority: str = ""
    rest: PathReader = field(default_factory=NoPaths)
    metrics: WorkMetrics | None = None
    counted: ControllerMetrics = field(default_factory=lambda: ControllerMetrics(Registry()))
    reports: dict[str, Report] = field(default_factory=dict)


class Loop:
    """One controller in its frame: build it before the informers run, then run()."""

    def __init__(self, spec: ControllerSpec, parts: Parts) -> None:
        self.name = spec.name
        self.queue: RateLimitingQueue[str] = RateLimitingQueue(
            parts.clock, metrics=parts.metrics.for_queue(spec.name) if parts.metrics is not None else None
        )
        self.report = parts.reports.setdefault(spec.name, Report())
        self._informers = Informers(parts.shared)
        context = Context(
            client=parts.client,
            informers=self._informers,
            clock=parts.clock,
            events=parts.events.of(spec.event_source or spec.name),
            options=parts.options,
            scheme=parts.scheme,
            authority=parts.authority,
            queue=self.queue,
            rest=parts.rest,
            metrics=parts.counted,
        )
        self.expectations = context.awaited
        self.reconciler = spec.make(context)
        for watch in self.reconciler.watches():
            self._follow(self._informers.of(watch.cls, field_selector=watch.field_selector), watch.keys)
        self.controller: Controller[str] = Controller(
            spec.name, self.queue, self._reconcile, spec.workers, metrics=parts.metrics
        )

    async def wait_synced(self) -> None:
        """Return when the informers of this controller have their first list."""
        await self._informers.wait_synced()

    async def run(self) -> None:
        """Wait for the informers, then work until cancelled."""
        await self.wait_synced()
        for key in self.reconciler.first_keys():
            self.queue.add(key)
        self.report.is_running = True
        try:
            await self.controller.run()
        finally:
            self.report.is_running = False

    def views(self) -> list[tuple[type[Message], Informer[Any, Any]]]:
        """Its views, with the kinds that they are of."""
        return self._informers.asked()

    def trigger(self, key: str) -> None:
        """Have a key looked at now."""
        self.queue.add(key)

    async def _reconcile(self, key: str) -> RequeueAfter | None:
        self.report.reconciles += 1
        try:
            return await self.reconciler.reconcile(key)
        except Exception as err:
            self.report.failures += 1
            self.report.last_error = str(err) or type(err).__name__
            self.report.last_error_key = key
            raise

    def _follow(self, informer: Informer[Any, Any], keys: Keys) -> None:
        def enqueue(old: Any, new: Any) -> None:
            for key in keys(old, new):
                self.queue.add(key)

        informer.add_handler(
            on_add=lambda obj: enqueue(None, obj),
            on_update=enqueue,
            on_delete=lambda obj: enqueue(obj, None),
        )


def own_key(old: Any, new: Any) -> Iterable[str]:
    """Key function of the kind that a controller reconciles: the object's own key."""
    return (namespaced_name(new if new is not None else old),)
