"""The controller manager's entry."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import uuid
from collections.abc import Iterable, Sequence

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from tiphys_apimachinery.scheme import load_default
from tiphys_client.client import Client
from tiphys_client.counted_transport import counted_transport
from tiphys_client.grpc_status import reply_for
from tiphys_client.kubeconfig import ClientConfig, load
from tiphys_client.leader_election import LeaderElector, LeaseTimes, report_leading
from tiphys_client.rest import NoPaths, PathReader, RestReader
from tiphys_client.shared_informers import SharedInformers
from tiphys_client.transport import FencedTransport, Transport
from tiphys_client.workqueue_metrics import WorkMetrics
from tiphys_component import log
from tiphys_component.app import StartupError, run, start_loop
from tiphys_component.clock import Clock, SystemClock
from tiphys_component.health import Health, NotReady
from tiphys_component.metrics import Registry
from tiphys_component.options import parse
from tiphys_component.serving import Face
from tiphys_component.zpages import ZPages
from tiphys_controller_manager.controller_metrics import ControllerMetrics
from tiphys_controller_manager.frame import Parts
from tiphys_controller_manager.manager import Manager, shown
from tiphys_controller_manager.options import Options
from tiphys_controller_manager.recorders import Recorders
from tiphys_controller_manager.registry import controllers
from tiphys_controller_manager.servicer import servicer

NAME = "kube-controller-manager"


class ControllerManager:
    """The service: faces, leader election, informers and controllers.

    transport leads to the server otherwise than the configuration says, as in a simulation.
    """

    def __init__(
        self,
        options: Options,
        *,
        config: ClientConfig | None = None,
        clock: Clock | None = None,
        transport: Transport | None = None,
        rest: PathReader | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._options = options
        self._config = config or load(options.kubeconfig)
        self._clock = clock or SystemClock()
        self._transport = transport
        # Who gives a transport of its own has no port to read from.
        self._rest = rest or (RestReader(self._config) if transport is None else NoPaths())
        self._rng = rng

    async def run(self) -> None:
        """Work until cancelled. Raises LeadershipLost when another process has taken over."""
        options, clock = self._options, self._clock
        registry, health = Registry(process_metrics=True), Health()
        transport = self._transport or counted_transport(self._config, registry)
        identity = options.leader_elect_identity or f"{socket.gethostname()}_{uuid.uuid4()}"
        elector = LeaderElector(
            Client(transport, field_manager=NAME),
            name=options.leader_elect_resource_name,
            namespace=options.leader_elect_resource_namespace,
            identity=identity,
            clock=clock,
            times=_lease_times(options),
            rng=self._rng,
        )
        fenced = FencedTransport(transport, elector.is_leader) if options.leader_elect else transport
        client = Client(fenced, field_manager=NAME)
        recorders = Recorders(client, clock, registry, self._rng)
        shared = SharedInformers(client, clock, self._rng)
        parts = Parts(
            client=client,
            shared=shared,
            clock=clock,
            events=recorders,
            options=options,
            scheme=load_default(),
            authority=_authority(options, self._config),
            rest=self._rest,
            metrics=WorkMetrics(registry),
            counted=ControllerMetrics(registry),
        )
        report_leading(registry, elector, options.leader_elect_resource_name)
        manager = Manager(controllers(options), parts)
        registry.collector(lambda: _running(manager))
        health.add_readiness("informers", lambda: _check_synced(shared, elector, options))
        face = Face(
            options.bind_address,
            options.grpc_port,
            options.secure_port,
            (servicer(manager, identity=identity, leader=lambda: elector.holder),),
            registry,
            health,
            options.tls,
            reply_for,
            ZPages(NAME, options, clock=clock, own={"/controllers": lambda: shown(manager.states())}),
        )

        async def lead() -> None:
            async with asyncio.TaskGroup() as group:
                manager.build()
                start_loop(group, recorders.run(), "events")
                start_loop(group, manager.run(), "controllers")

        try:
            async with asyncio.TaskGroup() as group:
                start_loop(group, face.run(), "faces")
                start_loop(group, elector.run(lead) if options.leader_elect else lead(), "leadership")
        finally:
            await self._rest.close()
            await client.close()


def _running(manager: Manager) -> Iterable[Metric]:
    """Which controllers run. Source: component-base metrics/prometheus/controllers."""
    text = "Whether a controller runs in this process, labelled by its name and that of its manager."
    found = GaugeMetricFamily("running_managed_controllers", text, labels=("name", "manager"))
    for state in manager.states():
        if state.enabled:
            found.add_metric((state.name, NAME), float(state.running))
    yield found


def _check_synced(shared: SharedInformers, elector: LeaderElector, options: Options) -> None:
    """A process that waits for the lease is ready: it is there to take over."""
    if (elector.is_leader() or not options.leader_elect) and not shared.is_synced():
        raise NotReady("informers are not filled")


def _lease_times(options: Options) -> LeaseTimes:
    try:
        return LeaseTimes(
            options.leader_elect_lease_duration_s,
            options.leader_elect_renew_deadline_s,
            options.leader_elect_retry_period_s,
        )
    except ValueError as err:
        raise StartupError(str(err), "give other values with --leader-elect-…") from err


def _authority(options: Options, config: ClientConfig) -> str:
    """The certificates that pods are to trust, PEM."""
    if options.root_ca_file is None:
        return config.ca_pem.decode()
    try:
        return options.root_ca_file.read_text()
    except OSError as err:
        reason = os.strerror(err.errno) if err.errno else str(err)
        raise StartupError(f"cannot read {options.root_ca_file}: {reason}", "check --root-ca-file") from err


def main(argv: Sequence[str] | None = None) -> int:
    """Run the controller manager; returns the exit code."""
    options = parse(Options, argv, prog=NAME)
    log.configure(options.log_level, options.log_format)

    async def serve() -> None:
        await ControllerManager(options).run()

    return run(serve, name=NAME)
