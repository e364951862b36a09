"""The scheduler's entry."""

from __future__ import annotations

import asyncio
import random
import socket
import uuid
from collections.abc import Sequence
from typing import Literal, cast

from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.reference_pb2 import ObjectReference
from tiphys_client.client import Client
from tiphys_client.counted_transport import counted_transport
from tiphys_client.grpc_status import reply_for
from tiphys_client.informer import Informer
from tiphys_client.kubeconfig import load
from tiphys_client.leader_election import LeaderElector
from tiphys_client.recorder import EventRecorder
from tiphys_client.rest import NoPaths, PathReader, RestReader
from tiphys_client.transport import Transport
from tiphys_component import log
from tiphys_component.app import run, start_loop
from tiphys_component.clock import Clock, SystemClock
from tiphys_component.health import Health
from tiphys_component.metrics import Registry
from tiphys_component.options import parse
from tiphys_component.proc import quiet_collector
from tiphys_component.rpc import Servicer
from tiphys_component.serving import Face
from tiphys_component.zpages import ZPages
from tiphys_scheduler.budgets import budget_informer
from tiphys_scheduler.configuration.load import configuration_of
from tiphys_scheduler.dynamic_resources.support import DeviceSupport
from tiphys_scheduler.framework.remote import connect
from tiphys_scheduler.options import Options
from tiphys_scheduler.plugins.measured_use import MeasuredUseArgs
from tiphys_scheduler.pod_info import PodInfo
from tiphys_scheduler.pod_reader import PodReader
from tiphys_scheduler.scheduler import Scheduler
from tiphys_scheduler.servicer import servicer
from tiphys_scheduler.services import Services
from tiphys_scheduler.surroundings import Surroundings
from tiphys_scheduler.use_reader import UseReader
from tiphys_scheduler.volumes import storage_informers

COMPONENT = "default-scheduler"
# Events that may wait to be written: one of each pod that is bound meanwhile.
_EVENTS = 100_000


class RecordedPodEvents:
    """Writes the scheduler's events by a recorder."""

    def __init__(self, recorder: EventRecorder) -> None:
        self._recorder = recorder

    def event(self, pod: PodInfo, kind: str, reason: str, message: str) -> None:
        """Records an Event on the pod."""
        about = ObjectReference(kind="Pod", apiVersion="v1", namespace=pod.namespace, name=pod.name, uid=pod.uid)
        action = "Binding" if reason == "Scheduled" else "Scheduling"
        self._recorder.event(about, cast(Literal["Normal", "Warning"], kind), reason, message, action=action)


class SchedulerService:
    """The service: informers, the cycle, and the faces.

    transport leads to the server otherwise than the kubeconfig says, as in a simulation; rest does for measured use.
    """

    def __init__(
        self,
        options: Options,
        *,
        transport: Transport | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        rest: PathReader | None = None,
    ) -> None:
        self._options = options
        self._transport = transport
        self._given_rest = rest
        self._clock = clock or SystemClock()
        self._rng = rng

    async def run(self) -> None:
        """Works until cancelled."""
        options, clock = self._options, self._clock
        registry, health = Registry(process_metrics=True), Health()
        transport = self._transport or counted_transport(load(options.kubeconfig), registry)
        client = Client(transport, field_manager="kube-scheduler")
        rest = self._given_rest or (NoPaths() if self._transport is not None else RestReader(load(options.kubeconfig)))
        nodes: Informer[Node, object] = Informer(client, Node, clock=clock, rng=self._rng)
        pods = _pod_informer(client, clock, self._rng)
        storage = storage_informers(client, clock, self._rng)
        surroundings = Surroundings(client, clock, self._rng)
        devices = DeviceSupport(client, clock, self._rng)
        budgets = budget_informer(client, clock, self._rng)
        config = configuration_of(options)
        services = Services(client, clock) if config.uses_services else None
        recorder = EventRecorder(client, COMPONENT, clock=clock, registry=registry, rng=self._rng, capacity=_EVENTS)
        scheduler = Scheduler(
            client,
            nodes,
            pods,
            clock=clock,
            config=config,
            services=services,
            remotes=await connect(config.remote_plugins),
            surroundings=surroundings,
            events=RecordedPodEvents(recorder),
            registry=registry,
            storage=storage,
            budgets=budgets,
            devices=devices,
        )
        opened = health.gate("informers")
        face = self._face(servicer(scheduler, pods), registry, health)
        try:
            async with asyncio.TaskGroup() as group:
                start_loop(group, nodes.run(), "nodes informer")
                start_loop(group, pods.run(), "pods informer")
                start_loop(group, budgets.run(), "budgets informer")
                if config.measured_use is not None:
                    use = _use_reader(rest, config.measured_use, clock, scheduler)
                    start_loop(group, use.run(), "measured use")
                if services is not None:
                    start_loop(group, services.run(), "services informer")
                    await services.wait_synced()
                others = (*storage.all(), *surroundings.all(), *devices.all())
                for informer in others:
                    start_loop(group, informer.run(), "informer")
                start_loop(group, recorder.run(), "recorder")
                start_loop(group, face.run(), "faces")
                await nodes.wait_synced()
                await pods.wait_synced()
                for informer in others:
                    await informer.wait_synced()
                opened()
                self._quiet_collector()
                await self._lead(client, scheduler)
        finally:
            await rest.close()
            await client.close()

    def _face(self, servicer: Servicer, registry: Registry, health: Health) -> Face:
        options = self._options
        return Face(
            options.bind_address,
            options.grpc_port,
            options.secure_port,
            (servicer,),
            registry,
            health,
            options.tls,
            reply_for,
            ZPages("kube-scheduler", options, clock=self._clock),
        )

    def _quiet_collector(self) -> None:
        """Nodes and pods stay: to look through them for garbage, again and again, took a tenth of the time.

        Of a process that has others in it, as a simulation has, nothing is known.
        """
        if self._transport is None:
            quiet_collector()

    async def _lead(self, client: Client, scheduler: Scheduler) -> None:
        if not self._options.leader_elect:
            await scheduler.run()
            return
        identity = self._options.leader_elect_identity or f"{socket.gethostname()}_{uuid.uuid4()}"
        elector = LeaderElector(
            client,
            name="kube-scheduler",
            namespace="kube-system",
            identity=identity,
            clock=self._clock,
            rng=self._rng,
        )
        await elector.run(scheduler.run)


def _pod_informer(client: Client, clock: Clock, rng: random.Random | None) -> Informer[Pod, PodInfo]:
    reader = PodReader()
    return Informer(client, Pod, clock=clock, projection=reader.read, renewal=reader.renew, rng=rng)


def _use_reader(rest: PathReader, args: MeasuredUseArgs, clock: Clock, scheduler: Scheduler) -> UseReader:
    return UseReader(rest, args, clock, pods_on=scheduler.cache.pods_on, told=scheduler.note_use)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the scheduler; returns the exit code."""
    options = parse(Options, argv, prog="kube-scheduler")
    log.configure(options.log_level, options.log_format)
    return run(SchedulerService(options), name="kube-scheduler")
