"""The service: makes the parts, hands them to each other, and runs their loops."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext

from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys.api.core.v1.service_pb2 import Service as ServiceObject
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_apimachinery.errors import Forbidden, NotFound
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_client.recorder import EventRecorder
from tiphys_component.app import Service, start_loop
from tiphys_component.clock import Clock
from tiphys_component.proc import to_thread
from tiphys_component.rpc import Server
from tiphys_component.tls import server_ssl_context
from tiphys_component.zpages import ZPages
from tiphys_cri.interface import ImageService, RuntimeService
from tiphys_kubelet.csi.assembly import CsiSupport
from tiphys_kubelet.csi.volume_stats import VolumeStats
from tiphys_kubelet.dra.drivers import DraDrivers
from tiphys_kubelet.dra.manager import ClaimManager, WithClaims
from tiphys_kubelet.machine import read_machine
from tiphys_kubelet.network_garbage import NetworkGarbage
from tiphys_kubelet.network_status import NetworkStatus
from tiphys_kubelet.node_lease import NodeLease
from tiphys_kubelet.node_status import NodeIdentity, NodeReporter
from tiphys_kubelet.objects import ObjectCache, ObjectKey, Referenced, mounts_by_driver
from tiphys_kubelet.options import Options
from tiphys_kubelet.pleg import PodLifecycle
from tiphys_kubelet.plugin_watcher import PluginHandler, PluginWatcher
from tiphys_kubelet.pod_source import PodSource
from tiphys_kubelet.pod_worker import Surroundings
from tiphys_kubelet.pod_workers import PodWorkers
from tiphys_kubelet.probes.manager import ProbeManager
from tiphys_kubelet.recorder import PodEvents
from tiphys_kubelet.resizing.actuator import Actuator
from tiphys_kubelet.resizing.metrics import ResizeMetrics
from tiphys_kubelet.resizing.resizes import Resizes
from tiphys_kubelet.resources.manager import DeviceManager
from tiphys_kubelet.resources.pod_resources import PodResourcesServer
from tiphys_kubelet.resources.registration import DevicePluginHandler, RegistrationServer
from tiphys_kubelet.runtime.cgroups import Cgroups, can_lower_oom_score
from tiphys_kubelet.runtime.container_config import ContainerSettings
from tiphys_kubelet.runtime.dns import DnsSettings, read_resolv_conf
from tiphys_kubelet.runtime.images import ImagePuller
from tiphys_kubelet.runtime.labels import POD_UID
from tiphys_kubelet.runtime.limits import Limits, from_cri, pod_limits
from tiphys_kubelet.runtime.pod_runtime import NodeSettings, PodRuntime
from tiphys_kubelet.runtime.sandbox_config import SandboxSettings
from tiphys_kubelet.server.app import KubeletServer, ServerParts
from tiphys_kubelet.server.auth import ApiGuard
from tiphys_kubelet.server.certificate_metrics import CertificateMetrics
from tiphys_kubelet.server.metrics import KubeletMetrics
from tiphys_kubelet.servicer import servicer
from tiphys_kubelet.stats.sampler import Groups, UsageSampler
from tiphys_kubelet.status_manager import StatusManager
from tiphys_kubelet.tokens import TokenSource
from tiphys_kubelet.volumes.manager import VolumeManager
from tiphys_kubelet.volumes.projected import RequestToken
from tiphys_kubelet.volumes.registry import default_plugins

# The API server's own identity towards kubelets.
API_SERVER_CLIENT = "kube-apiserver-kubelet-client"
HEALTHY_RELIST_S = 180.0
_MOST_UNTOLD = 32


@dataclass(frozen=True, slots=True)
class Outside:
    """What the kubelet works with and does not make itself."""

    client: Client
    runtime: RuntimeService
    images: ImageService
    clock: Clock
    # The certificate that client shows.
    client_pem: bytes = b""


class Kubelet:
    """One node's agent; `run` until it is cancelled. Pods go on running when it ends."""

    def __init__(self, options: Options, outside: Outside) -> None:
        self._options = options
        self._outside = outside
        self._node: Node | None = None
        self._untold: deque[tuple[str, str]] = deque(maxlen=_MOST_UNTOLD)
        client, clock = outside.client, outside.clock
        self.recorder = EventRecorder(client, "kubelet", clock=clock, host=options.node_name)
        self.events = PodEvents(self.recorder)
        self.machine = read_machine(_existing(options.root_dir))
        self.cgroups = Cgroups(options.cgroup_root)
        self._own_groups = options.cgroups_per_qos and self.cgroups.is_usable()
        self._group_of: Callable[[Pod], str] = self.cgroups.parent if self._own_groups else _no_parent
        self.lifecycle = PodLifecycle(outside.runtime, clock, self._observed, self._limits_of)
        self.probes = ProbeManager(outside.runtime, clock, self._observed, self._unhealthy)
        self.objects = ObjectCache(self._fetch, self._follow, self._objects_changed)
        self.statuses = StatusManager(client, clock)
        self.services: Informer[ServiceObject, object] = Informer(client, ServiceObject, clock=clock)
        self.source = PodSource(client, clock, options.node_name)
        request_token = TokenSource(client, clock).request
        self.csi = self._make_csi(request_token)
        plugins = default_plugins(clock, request_token, self.csi.plugin)
        self.volumes = VolumeManager(options.root_dir / "pods", plugins)
        self.devices = DeviceManager(
            options.root_dir / "device-plugins",
            clock,
            on_counts=self._device_counts_changed,
            on_resource=self._devices_changed,
            report=self._device_trouble,
        )
        self.dra = DraDrivers(self._dra_driver_came)
        self.claims = ClaimManager(options.root_dir, client, self.dra)
        self.nodes: Informer[Node, object] = Informer(
            client, Node, field_selector=f"metadata.name={options.node_name}", clock=clock
        )
        self.plugins = PluginWatcher(options.root_dir / "plugins_registry", self._plugin_handlers(), clock)
        self.metrics = KubeletMetrics(options.node_name, pods=self._count_pods, containers=self._count_containers)
        self.lifecycle.on_relist = self.metrics.relisted
        self.statuses.on_written = self.metrics.status_written
        self.resizes = self._make_resizes()
        self.workers = PodWorkers(self._surroundings())
        self.reporter = self._make_reporter()
        self.nodes.add_handler(
            on_add=self.reporter.observed,
            on_update=lambda _, node: self.reporter.observed(node),
            on_delete=lambda _: self.reporter.observed(None),
        )
        self.nodes.add_handler(
            on_add=self.csi.in_use.node_seen, on_update=lambda _, node: self.csi.in_use.node_seen(node)
        )
        self.lease = NodeLease(options.node_name, client, clock, lambda: self._node)
        self.volume_stats = VolumeStats(self.csi.plugin.published, self.csi.drivers, self.metrics.registry, clock)
        self.guard = ApiGuard(client, clock, options.node_name, trusted=(API_SERVER_CLIENT,))
        self.parts = self._server_parts()
        tls = self._serving_tls()
        self.server = KubeletServer(self.parts, options.address, options.port, tls)
        services = (servicer(self.parts, self.workers, self.guard),)
        self.grpc_server = Server(f"{options.address}:{options.grpc_port}", options.tls, services, flag="--grpc-port")

    def _serving_tls(self) -> SSLContext | None:
        """The server's side of TLS, and what the metrics tell of certificates."""
        files = self._options.tls
        told = CertificateMetrics(
            self._outside.clock, client_pem=self._outside.client_pem, server=files.cert if files else None
        )
        told.show_in(self.metrics.registry)
        return server_ssl_context(files, not_reloaded=told.not_reloaded) if files is not None else None

    async def run(self) -> None:
        """Works until cancelled. Raises StartupError where a port can't be had."""
        await self.devices.load()
        await self.claims.load()
        async with asyncio.TaskGroup() as group:
            # The servers first: a port that is taken must be told before anything is touched.
            start_loop(group, self.server.run(), "https server")
            await self.server.listening.wait()
            start_loop(group, self.grpc_server.run(), "grpc server")
            for loop in self.loops():
                start_loop(group, loop.run(), type(loop).__name__)
            start_loop(group, self.hand_over(), "hand over of pods")

    def loops(self) -> tuple[Service, ...]:
        """All that works beside the servers; each runs for ever."""
        return (
            self.lifecycle,
            self.reporter,
            self.lease,
            self.recorder,
            self.statuses,
            self.services,
            self.objects,
            self.probes,
            self.workers,
            self.source,
            self.plugins,
            *self.csi.loops(),
            self.volume_stats,
            self.nodes,
            self.devices,
            self.resizes,
            RegistrationServer(self.devices),
            PodResourcesServer(self._options.root_dir / "pod-resources", self.devices, self._pods_with_status),
            *self._network_loops(),
        )

    def _network_loops(self) -> tuple[Service, ...]:
        socket, outside = self._options.cni_socket, self._outside
        if socket is None:
            return ()
        return (NetworkGarbage(socket, outside.runtime, outside.clock, self.lifecycle.wait_relisted),)

    async def hand_over(self) -> None:
        """Pods begin when the runtime's picture is complete: before that a running one would look absent."""
        await self.lifecycle.wait_relisted()
        await self.services.wait_synced()
        await self.devices.wait_loaded()
        await self.resizes.load()
        await self.source.hand_over(self.workers)

    def _plugin_handlers(self) -> Mapping[str, PluginHandler]:
        """Who serves plugins that register by a socket, by their type."""
        return {
            "CSIPlugin": self.csi.drivers,
            "DevicePlugin": DevicePluginHandler(self.devices),
            "DRAPlugin": self.dra,
        }

    def _make_csi(self, request_token: RequestToken) -> CsiSupport:
        return CsiSupport(
            self._options.root_dir,
            self._options.node_name,
            client=self._outside.client,
            clock=self._outside.clock,
            events=self.events,
            request_token=request_token,
            on_driver=self._driver_came,
        )

    def _make_resizes(self) -> Resizes:
        return Resizes(
            self._options.root_dir,
            self.machine.allocatable(self._options.max_pods),
            self._outside.clock,
            self.events,
            ResizeMetrics(self.metrics.registry),
            lambda uid: self.workers.resized(uid),
        )

    def _surroundings(self) -> Surroundings:
        options, outside = self._options, self._outside
        settings = self._node_settings()
        runtime = PodRuntime(
            runtime=outside.runtime,
            images=ImagePuller(outside.images, outside.clock),
            lifecycle=self.lifecycle,
            volumes=self.volumes,
            events=self.events,
            clock=outside.clock,
            settings=settings,
            devices=WithClaims(self.devices, self.claims),
        )
        return Surroundings(
            client=outside.client,
            clock=outside.clock,
            events=self.events,
            lifecycle=self.lifecycle,
            runtime=runtime,
            volumes=self.volumes,
            objects=self.objects,
            probes=self.probes,
            statuses=self.statuses,
            services=self.services.list,
            host_ips=options.addresses,
            release_cgroup=self.cgroups.release,
            worked=self.metrics.worked,
            devices=self.devices,
            resizes=self.resizes,
            actuator=Actuator(
                self.resizes,
                outside.runtime,
                self.lifecycle,
                outside.clock,
                self.resizes.metrics,
                self.cgroups if self._own_groups else None,
            ),
            claims=self.claims,
        )

    def _node_settings(self) -> NodeSettings:
        options = self._options
        dns = DnsSettings(options.cluster_dns, options.cluster_domain, read_resolv_conf(options.resolv_conf))
        return NodeSettings(
            pods_root=options.root_dir / "pods",
            sandbox=SandboxSettings(str(options.pod_log_dir), dns),
            container=ContainerSettings(self.machine.memory_bytes, can_lower_oom_score()),
            cgroup_parent=self._group_of,
            make_group=self._make_group,
            allocatable=self.machine.allocatable(options.max_pods),
        )

    def _make_reporter(self) -> NodeReporter:
        options, outside = self._options, self._outside
        identity = NodeIdentity(
            name=options.node_name,
            addresses=options.addresses,
            port=options.port,
            max_pods=options.max_pods,
            labels=options.node_labels,
            taints=options.taints,
        )
        return NodeReporter(
            identity,
            self.machine,
            client=outside.client,
            runtime=outside.runtime,
            images=outside.images,
            clock=outside.clock,
            events=self.events,
            relisted_at=lambda: self.lifecycle.relisted_at,
            on_node=self._node_changed,
            devices=self.devices.counts,
            network_trouble=None if options.cni_socket is None else NetworkStatus(options.cni_socket).trouble,
        )

    def _server_parts(self) -> ServerParts:
        clock = self._outside.clock
        return ServerParts(
            node_name=self._options.node_name,
            clock=clock,
            runtime=self._outside.runtime,
            lifecycle=self.lifecycle,
            guard=self.guard,
            metrics=self.metrics,
            find_pod=self.source.find,
            pods=self._pods_with_status,
            is_healthy=lambda: clock.monotonic() - self.lifecycle.relisted_at < HEALTHY_RELIST_S,
            started_at=clock.now(),
            sampler=UsageSampler(
                self._outside.runtime,
                clock,
                groups=Groups(self._options.cgroup_root, self._group_of),
                pods=self.source.pods,
                observed=self.lifecycle.observations,
            ),
            volume_uses=lambda: self.volume_stats.uses,
            pages=ZPages("kubelet", self._options, clock=clock),
        )

    def _pods_with_status(self) -> Sequence[Pod]:
        pods = []
        for pod in self.source.pods():
            status = self.statuses.get(pod.metadata.uid)
            if status is not None:
                pod.status.CopyFrom(status)
            pods.append(pod)
        return pods

    async def _fetch(self, key: ObjectKey) -> Referenced | None:
        try:
            return await self._outside.client.get(key.kind, key.name, key.namespace)
        except NotFound:
            return None
        except Forbidden:
            # What a node may know of a volume hangs on objects that may still be to come: as good as absent.
            if key.kind in (ConfigMap, Secret):
                raise
            return None

    async def _follow(self, key: ObjectKey, told: Callable[[Referenced | None], None]) -> None:
        informer: Informer[Referenced, object] = Informer(
            self._outside.client,
            key.kind,
            key.namespace,
            field_selector=f"metadata.name={key.name}",
            clock=self._outside.clock,
        )
        informer.add_handler(on_add=told, on_update=lambda _, new: told(new), on_delete=lambda _: told(None))
        await informer.run()

    def _observed(self, uid: str) -> None:
        self.workers.observed(uid)

    async def _limits_of(self, status: cri.ContainerStatus) -> Limits | None:
        """What a container may use: the kernel's own word where its groups are ours, else the runtime's."""
        told = from_cri(status)
        if not self._own_groups:
            return told
        uid = status.labels.get(POD_UID, "")
        found = await to_thread(self.cgroups.container_limits, uid, status.id)
        # Version 2 keeps weights, of which shares can't be told exactly.
        return told if found is None or (self.cgroups.is_version_2() and told is not None) else found

    def _make_group(self, pod: Pod) -> None:
        if self._own_groups:
            self.cgroups.set_pod_limits(pod, pod_limits(pod))

    def _objects_changed(self, uid: str) -> None:
        self.workers.objects_changed(uid)

    def _driver_came(self) -> None:
        """Pods that wait for a driver go on, and so does the end of those that are gone."""
        for worker in self.workers.workers():
            if any(mounts_by_driver(worker.pod, volume) for volume in worker.pod.spec.volumes):
                worker.objects_changed()
        self.source.look_again()

    def _dra_driver_came(self) -> None:
        """Pods that wait for a driver go on, and what pods that are gone left prepared is given up."""
        self.workers.drivers_changed()
        self.source.look_again()

    def _unhealthy(self, pod: Pod, container: str, kind: str, message: str) -> None:
        self.events.event(pod, "Warning", "Unhealthy", f"{kind} probe failed: {message}", container=container)

    def _device_counts_changed(self) -> None:
        self.reporter.devices_changed()

    def _devices_changed(self, resource: str) -> None:
        self.workers.devices_changed(resource)

    def _device_trouble(self, reason: str, message: str) -> None:
        if self._node is not None:
            self.events.event(self._node, "Warning", reason, message)
        else:
            # What is found at the start is told once there is a Node to tell it of.
            self._untold.append((reason, message))

    def _node_changed(self, node: Node) -> None:
        self._node = node
        while self._untold:
            self._device_trouble(*self._untold.popleft())

    def _count_pods(self) -> float:
        return float(sum(any(box.ready for box in pod.sandboxes) for pod in self.lifecycle.observations()))

    def _count_containers(self) -> float:
        return float(sum(c.is_running for pod in self.lifecycle.observations() for c in pod.containers))


async def prepare_directories(options: Options) -> None:
    """Makes the directories that the kubelet works in."""
    for path in (options.root_dir / "pods", options.pod_log_dir):
        await to_thread(path.mkdir, parents=True, exist_ok=True)


def _existing(path: Path) -> Path:
    """The nearest directory at or above the path that exists."""
    return path if path.exists() else _existing(path.parent)


def _no_parent(pod: Pod) -> str:
    return ""
