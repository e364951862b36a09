"""The flannel service's entry: `python -m tiphys_cni.flannel.main`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address

import grpc

from tiphys.api.core.v1.node_pb2 import Node
from tiphys_client.client import Client
from tiphys_client.counted_transport import counted_transport
from tiphys_client.grpc_status import reply_for
from tiphys_client.informer import Informer
from tiphys_client.kubeconfig import load
from tiphys_client.recorder import EventRecorder
from tiphys_cni.flannel import masquerade
from tiphys_cni.flannel.backend.registry import BACKENDS
from tiphys_cni.flannel.etcd.client import EtcdClient
from tiphys_cni.flannel.etcd.subnet_manager import EtcdSubnetManager, Place
from tiphys_cni.flannel.lease import claim_of
from tiphys_cni.flannel.manager import Config, Manager
from tiphys_cni.flannel.options import Options
from tiphys_cni.flannel.preparation import prepare
from tiphys_cni.flannel.servicer import servicer
from tiphys_cni.flannel.subnet import SubnetFileError, read
from tiphys_cni.flannel.subnet_manager import KubeSubnetManager, SubnetManager
from tiphys_component import log
from tiphys_component.app import Service, StartupError, run, start_loop
from tiphys_component.clock import Clock, SystemClock
from tiphys_component.health import Health, NotReady
from tiphys_component.metrics import Registry
from tiphys_component.options import parse
from tiphys_component.serving import Face
from tiphys_component.zpages import ZPages


class Flannel:
    """The service: the informer of Nodes, the loop, and the faces."""

    def __init__(self, options: Options) -> None:
        self._options = options

    async def run(self) -> None:
        """Works until cancelled. Devices, entries and rules stay when it ends, so traffic goes on."""
        options = self._options
        clock, registry, health = SystemClock(), Registry(process_metrics=True), Health()
        settings = options.settings()
        backend = BACKENDS[options.backend](settings)
        kept = (
            _at_nodes(options, clock, registry) if options.subnet_manager == "kube" else await _in_etcd(options, clock)
        )
        manager = Manager(
            Config(kept.node, settings.network, options.subnet_file, options.ip_masq),
            backend,
            kept.leases,
            prepare=partial(prepare, backend.overlay, settings.network, ip_masq=options.ip_masq),
            clock=clock,
            registry=registry,
        )

        def check_lease() -> None:
            if manager.own is None:
                raise NotReady(manager.survey.problem or "no lease is held yet")

        health.add_readiness("lease", check_lease)
        face = Face(
            options.bind_address,
            options.grpc_port,
            options.metrics_port,
            (servicer(manager),),
            registry,
            health,
            options.tls,
            reply_for,
            ZPages("flannel", options),
        )
        try:
            async with asyncio.TaskGroup() as group:
                for name, work in kept.loops.items():
                    start_loop(group, work.run(), name)
                start_loop(group, manager.run(), "manager")
                if options.ip_masq:
                    start_loop(group, masquerade.watch(manager.prepare_again), "masquerading monitor")
                start_loop(group, face.run(), "faces")
        finally:
            await kept.close()


@dataclass(frozen=True, slots=True)
class _Kept:
    """What keeps the leases: the name of this node there, what has to run for it, and its end."""

    node: str
    leases: SubnetManager
    loops: Mapping[str, Service]
    close: Callable[[], Awaitable[None]]


def _at_nodes(options: Options, clock: Clock, registry: Registry) -> _Kept:
    assert options.kubeconfig is not None
    client = Client(counted_transport(load(options.kubeconfig), registry), field_manager="flannel")
    nodes = Informer(client, Node, clock=clock, projection=claim_of)
    events = EventRecorder(client, "flannel", clock=clock, host=options.node_name, registry=registry)
    network = options.settings().network
    leases = KubeSubnetManager(client, nodes, events, node=options.node_name, network=network)
    return _Kept(options.node_name, leases, {"nodes informer": nodes, "events": events}, client.close)


async def _in_etcd(options: Options, clock: Clock) -> _Kept:
    client = EtcdClient(options.etcd_endpoints, await asyncio.to_thread(_credentials, options))
    try:
        previous = (await asyncio.to_thread(read, options.subnet_file)).subnet.network
    except (FileNotFoundError, SubnetFileError):
        previous = None
    address = IPv4Address(options.node_ip)
    place = Place(options.settings().network, address, options.backend, previous, options.etcd_prefix)
    leases = EtcdSubnetManager(client, place, clock)
    return _Kept(options.node_ip, leases, {"leases in etcd": leases}, client.close)


def _credentials(options: Options) -> grpc.ChannelCredentials | None:
    """For etcd over TLS; None for plain. Raises StartupError."""
    if options.etcd_cafile is None:
        return None
    files = (options.etcd_cafile, options.etcd_keyfile, options.etcd_certfile)
    try:
        ca, key, certificate = (None if file is None else file.read_bytes() for file in files)
    except OSError as err:
        raise StartupError(f"cannot read {err.filename}: {err.strerror}", "check the --etcd-… flags") from err
    return grpc.ssl_channel_credentials(ca, key, certificate)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the flannel service; returns the exit code."""
    options = parse(Options, argv, prog="flannel")
    log.configure(options.log_level, options.log_format)
    return run(Flannel(options), name="flannel")


if __name__ == "__main__":
    sys.exit(main())
