"""The one table of what a cluster runs: every process, its arguments, its ports, and where it lives.

Order is start order. stage is stop order, highest first: agents before the API server they report to, that before its
store, containerd last of the node's, so that pods can still be stopped through it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tiphys_cluster import cgroups, containerd, network
from tiphys_cluster.child import ChildSpec
from tiphys_cluster.images.builtin import PAUSE
from tiphys_cluster.layout import Layout, NodeLayout
from tiphys_cluster.settings import Settings
from tiphys_cluster.spawn import zygote_argv

STAGE_STORE = 1
STAGE_RUNTIME = 2
STAGE_APISERVER = 3
STAGE_AGENTS = 4
STAGE_KEEPER = 5

APISERVER = "kube-apiserver"
ETCD = "etcd"
SUBNET_FILE = network.FLANNEL_RUN / "subnet.env"
HOSTPATH_DRIVER = "hostpath.csi.tiphys.dev"
# Simulated devices that are offered to claims, by this driver.
CLAIMED = "dra:"
DRA_DRIVER = "dra.tiphys.example"
_PLUGINS = network.KUBELET_ROOT / "plugins"
_REGISTRY = network.KUBELET_ROOT / "plugins_registry"
_DEVICE_PLUGINS = network.KUBELET_ROOT / "device-plugins"
_LOOPBACK = "127.0.0.1"
# Nodes whose egress proxies the API server knows: the second is there when the first is not.
_EGRESS_NODES = 2


@dataclass(frozen=True, slots=True)
class Place:
    """What every entry of the table is made from.

    tracking is the root of the cgroup hierarchy for processes; proxy_url is the proxy that this machine has to use.
    """

    layout: Layout
    settings: Settings
    tracking: str
    proxy_url: str = ""

    def cgroup(self, process: str) -> str:
        """The cgroup of a process."""
        return cgroups.process_group(self.tracking, self.layout.cgroup, process)


def keeper(place: Place) -> ChildSpec:
    """What brings the zygote back."""
    return _control(place, "keeper", "tiphys_cluster.keeper", zygote_argv(place.layout), stage=STAGE_KEEPER)


def store(place: Place) -> list[ChildSpec]:
    """etcd, when it is the store: on loopback ports of its own, with its data in the cluster's home."""
    if place.settings.store != "etcd":
        return []
    url = f"http://{_LOOPBACK}:{place.settings.etcd_port}"
    peer = f"http://{_LOOPBACK}:{place.settings.etcd_port + 1}"
    argv = (
        "etcd",
        f"--data-dir={place.layout.store / 'etcd'}",
        f"--name={place.settings.name}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={place.settings.name}={peer}",
        "--logger=zap",
        "--log-level=warn",
    )
    return [_control(place, ETCD, "", argv, stage=STAGE_STORE, ports=(place.settings.etcd_port,))]


def apiserver(place: Place) -> ChildSpec:
    """The API server: on loopback for people, on the leg for nodes and pods."""
    layout, settings, ports, pki = place.layout, place.settings, place.settings.ports, place.layout.pki
    if settings.store == "etcd":
        storage = ("--storage=etcd", f"--etcd-servers=http://{_LOOPBACK}:{place.settings.etcd_port}")
    else:
        storage = ("--storage=sqlite", f"--sqlite-path={layout.store / 'tiphys.db'}")
    argv = (
        f"--bind-address={_LOOPBACK}",
        f"--advertise-address={settings.leg_ip}",
        f"--secure-port={ports.apiserver}",
        f"--grpc-port={ports.apiserver_grpc}",
        f"--grpc-token-port={ports.apiserver_grpc_token}",
        *storage,
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
        f"--service-account-key-file={pki / 'sa.pub'}",
        f"--service-account-signing-key-file={pki / 'sa.key'}",
        f"--service-account-issuer=https://kubernetes.default.svc.{settings.cluster_domain}",
        f"--service-cluster-ip-range={settings.service_cidr}",
        "--authorization-mode=Node,RBAC",
        "--enable-bootstrap-token-auth=true",
        f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
        f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
        f"--egress-proxy={','.join(_egress_urls(settings))}",
    )
    taken = (ports.apiserver, ports.apiserver_grpc, ports.apiserver_grpc_token)
    return _control(place, APISERVER, "tiphys_apiserver.main", argv, stage=STAGE_APISERVER, ports=taken)


def control_plane(place: Place) -> list[ChildSpec]:
    """What works beside the API server, as its clients."""
    layout, settings, ports, pki = place.layout, place.settings, place.settings.ports, place.layout.pki
    controller_manager = (
        f"--kubeconfig={layout.conf('controller-manager')}",
        f"--bind-address={_LOOPBACK}",
        f"--secure-port={ports.controller_manager}",
        f"--grpc-port={ports.controller_manager_grpc}",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--cluster-signing-cert-file={pki / 'ca.crt'}",
        f"--cluster-signing-key-file={pki / 'ca.key'}",
        f"--cluster-cidr={settings.pod_cidr}",
        f"--service-cluster-ip-range={settings.service_cidr}",
        _identity(settings),
        "--allocate-node-cidrs=true",
        *_serving(layout, "controller-manager"),
    )
    scheduler = (
        f"--kubeconfig={layout.conf('scheduler')}",
        f"--bind-address={_LOOPBACK}",
        f"--secure-port={ports.scheduler}",
        f"--grpc-port={ports.scheduler_grpc}",
        _identity(settings),
        *_serving(layout, "scheduler"),
    )
    dns = (
        f"--kubeconfig={layout.conf('cluster-dns')}",
        f"--bind-address={settings.leg_ip}",
        f"--dns-port={ports.dns}",
        f"--metrics-port={ports.dns_metrics}",
        f"--grpc-port={ports.dns_grpc}",
        f"--cluster-domain={settings.cluster_domain}",
        f"--cluster-dns-ip={settings.dns_service_ip}",
        *_serving(layout, "cluster-dns"),
    )
    return [
        _control(
            place,
            "kube-controller-manager",
            "tiphys_controller_manager.main",
            controller_manager,
            ports=(ports.controller_manager, ports.controller_manager_grpc),
        ),
        _control(
            place,
            "kube-scheduler",
            "tiphys_scheduler.main",
            scheduler,
            ports=(ports.scheduler, ports.scheduler_grpc),
        ),
        _control(
            place,
            "cluster-dns",
            "tiphys_cluster_dns.main",
            dns,
            address=settings.leg_ip,
            ports=(ports.dns, ports.dns_metrics, ports.dns_grpc),
        ),
    ]


def registry_proxy(place: Place) -> ChildSpec:
    """The way to registries for every node's containerd."""
    settings, port = place.settings, place.settings.ports.registry_proxy
    argv = (
        f"--bind-address={settings.leg_ip}",
        f"--port={port}",
        f"--allow-from={settings.subnet}",
        *((f"--upstream={place.proxy_url}",) if place.proxy_url else ()),
    )
    module = "tiphys_cluster.egress"
    return _control(place, "registry-proxy", module, argv, stage=STAGE_RUNTIME, address=settings.leg_ip, ports=(port,))


def runtime(place: Place, node: str) -> ChildSpec:
    """A node's containerd, which pulls through the registry proxy."""
    settings, argv = place.settings, containerd.command(place.layout.node(node))
    proxy = f"http://{settings.leg_ip}:{settings.ports.registry_proxy}"
    direct = f"localhost,127.0.0.1,{settings.subnet},{settings.service_cidr},{settings.pod_cidr}"
    env = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": direct}
    env |= {name.lower(): value for name, value in env.items()}
    return _on_node(place, node, "containerd", argv, stage=STAGE_RUNTIME, env=env)


def agents(place: Place, node: str) -> list[ChildSpec]:
    """A node's own processes beside containerd."""
    ports = place.settings.ports
    return [
        flannel(place, node),
        _on_node(place, node, "tiphys-cni", _cni_argv(place, node), module="tiphys_cni.service", stage=STAGE_RUNTIME),
        _on_node(
            place,
            node,
            "kubelet",
            _kubelet_argv(place, node),
            module="tiphys_kubelet.main",
            ports=(ports.kubelet, ports.kubelet_grpc),
        ),
        _on_node(
            place,
            node,
            "kube-proxy",
            _kube_proxy_argv(place, node),
            module="tiphys_kube_proxy.main",
            ports=(ports.kube_proxy_health, ports.kube_proxy_grpc),
        ),
        *egress_proxies(place, node),
    ]


def egress_proxies(place: Place, node: str) -> list[ChildSpec]:
    """The API server's way to pods and services, on the first nodes: it lives where no route leads to them.

    Only the control plane's leg may use it. Pods can't take that address: they leave the node with the node's own.
    """
    settings, port = place.settings, place.settings.ports.egress_proxy
    if node not in settings.nodes[:_EGRESS_NODES]:
        return []
    argv = (
        f"--bind-address={settings.node_ip(node)}",
        f"--port={port}",
        f"--allow-from={settings.leg_ip}/32",
    )
    return [_on_node(place, node, "egress-proxy", argv, module="tiphys_cluster.egress", ports=(port,))]


def _egress_urls(settings: Settings) -> list[str]:
    return [f"http://{settings.node_ip(node)}:{settings.ports.egress_proxy}" for node in settings.nodes[:_EGRESS_NODES]]


def flannel(place: Place, node: str) -> ChildSpec:
    """What holds a node's subnet and carries packets to pods of the others."""
    settings, files, ports = place.settings, place.layout.node(node), place.settings.ports
    argv = (
        f"--kubeconfig={files.flannel_conf}",
        f"--node-name={node}",
        f"--backend={settings.flannel_backend}",
        "--iface=eth0",
        f"--node-ip={settings.node_ip(node)}",
        f"--pod-cidr={settings.pod_cidr}",
        f"--subnet-file={SUBNET_FILE}",
        f"--grpc-address={settings.node_ip(node)}",
        f"--grpc-port={ports.flannel_grpc}",
        f"--metrics-port={ports.flannel_metrics}",
        *_node_serving(place, files, "flannel"),
    )
    taken = (ports.flannel_grpc, ports.flannel_metrics)
    return _on_node(place, node, "flannel", argv, module="tiphys_cni.flannel.main", ports=taken)


def extensions(place: Place, node: str) -> list[ChildSpec]:
    """What registers with a node's kubelet: the CSI driver, its companion, and the plugin of simulated devices.

    Started when the node is Ready; nobody waits for them.
    """
    settings, files = place.settings, place.layout.node(node)
    driver = (
        f"--endpoint=unix://{_PLUGINS / HOSTPATH_DRIVER / 'csi.sock'}",
        f"--registration-socket={_REGISTRY / f'{HOSTPATH_DRIVER}-reg.sock'}",
        f"--node-id={node}",
        f"--state-dir={files.csi_hostpath}",
    )
    found = [
        _on_node(place, node, "csi-hostpath", driver, module="tiphys_csi.hostpath.main"),
        _csi_companion(place, node),
    ]
    devices = settings.member(node).devices
    if devices.startswith(CLAIMED):
        found.append(_dra_driver(place, node, devices.removeprefix(CLAIMED)))
    elif devices:
        argv = (f"--simulate={devices}", f"--state-dir={files.device_state}", f"--kubelet-dir={_DEVICE_PLUGINS}")
        found.append(_on_node(place, node, "device-plugin", argv, module="tiphys_device.main"))
    return found


def _dra_driver(place: Place, node: str, devices: str) -> ChildSpec:
    files = place.layout.node(node)
    argv = (
        f"--dra-driver={DRA_DRIVER}",
        f"--simulate={devices}",
        f"--kubeconfig={files.kubelet_conf}",
        f"--node-name={node}",
        f"--kubelet-root={network.KUBELET_ROOT}",
        f"--cdi-dir={files.cdi}",
    )
    return _on_node(place, node, "dra-driver", argv, module="tiphys_device.main")


def _csi_companion(place: Place, node: str) -> ChildSpec:
    files, ports = place.layout.node(node), place.settings.ports
    argv = (
        f"--kubeconfig={files.csi_companion_conf}",
        f"--node-name={node}",
        f"--plugins-registry={_REGISTRY}",
        f"--bind-address={place.settings.node_ip(node)}",
        f"--healthz-port={ports.csi_companion_health}",
        f"--grpc-port={ports.csi_companion_grpc}",
        *_node_serving(place, files, "csi-companion"),
    )
    taken = (ports.csi_companion_health, ports.csi_companion_grpc)
    return _on_node(place, node, "csi-companion", argv, module="tiphys_csi.companion.main", ports=taken)


def of_node(place: Place, node: str) -> list[ChildSpec]:
    """Everything that is started on a node."""
    return [runtime(place, node), *agents(place, node), *extensions(place, node)]


def wired_to_switch(place: Place, node: str) -> list[ChildSpec]:
    """What holds on to the node's interface, and is started again after that was plugged in anew."""
    return [flannel(place, node)]


def _cni_argv(place: Place, node: str) -> tuple[str, ...]:
    settings, files = place.settings, place.layout.node(node)
    network = ("--network=file", f"--conf-file={files.cni_template}") if settings.cni_conf else ("--network=flannel",)
    plugins = (f"--plugin-dir={settings.cni_bin_dir}",) if settings.cni_bin_dir else ()
    # It may read its Node as the kubelet may: both act for the node.
    return (
        f"--socket={files.cni_socket}",
        f"--grpc-socket={files.cni_grpc_socket}",
        f"--bin-dir={files.cni_bin}",
        f"--conf-dir={files.cni_conf}",
        f"--data-dir={files.cni_state}",
        f"--kubeconfig={files.kubelet_conf}",
        f"--node-name={node}",
        *network,
        *plugins,
        f"--subnet-file={SUBNET_FILE}",
    )


def _kubelet_argv(place: Place, node: str) -> tuple[str, ...]:
    layout, settings, files = place.layout, place.settings, place.layout.node(node)
    return (
        f"--kubeconfig={files.kubelet_conf}",
        f"--hostname-override={node}",
        f"--node-ip={settings.node_ip(node)}",
        f"--address={settings.node_ip(node)}",
        f"--port={settings.ports.kubelet}",
        f"--grpc-port={settings.ports.kubelet_grpc}",
        f"--root-dir={network.KUBELET_ROOT}",
        f"--pod-manifest-path={files.manifests}",
        f"--pod-log-dir={files.pod_logs}",
        f"--container-runtime-endpoint=unix://{files.containerd_socket}",
        f"--cni-socket={files.cni_grpc_socket}",
        f"--cgroup-root=/{layout.cgroup}/{node}",
        f"--cluster-dns={settings.dns_service_ip}",
        f"--cluster-domain={settings.cluster_domain}",
        *_node_serving(place, files, "kubelet"),
        f"--pod-infra-container-image={PAUSE}",
    )


def _kube_proxy_argv(place: Place, node: str) -> tuple[str, ...]:
    settings, files = place.settings, place.layout.node(node)
    return (
        f"--kubeconfig={files.kube_proxy_conf}",
        f"--hostname-override={node}",
        f"--bind-address={settings.node_ip(node)}",
        f"--cluster-cidr={settings.pod_cidr}",
        f"--healthz-port={settings.ports.kube_proxy_health}",
        f"--grpc-port={settings.ports.kube_proxy_grpc}",
        *_node_serving(place, files, "kube-proxy"),
    )


def _node_serving(place: Place, files: NodeLayout, component: str) -> tuple[str, ...]:
    return (
        f"--tls-cert-file={files.pki / component}.crt",
        f"--tls-private-key-file={files.pki / component}.key",
        f"--client-ca-file={place.layout.pki / 'ca.crt'}",
    )


def _identity(settings: Settings) -> str:
    """One name for all lives of a component: its next life takes the Lease of the last one over at once.

    The zygote starts it again only after its death, so no two ever have the name.
    """
    return f"--leader-elect-identity=tiphys-{settings.name}"


def _serving(layout: Layout, component: str) -> tuple[str, ...]:
    return (
        f"--tls-cert-file={layout.pki / component}.crt",
        f"--tls-private-key-file={layout.pki / component}.key",
        f"--client-ca-file={layout.pki / 'ca.crt'}",
    )


def _control(
    place: Place,
    name: str,
    module: str,
    argv: tuple[str, ...],
    *,
    stage: int = STAGE_AGENTS,
    address: str = _LOOPBACK,
    ports: tuple[int, ...] = (),
) -> ChildSpec:
    return ChildSpec(
        name=name,
        module=module,
        argv=argv,
        log=str(place.layout.log(name)),
        cgroup=place.cgroup(name),
        stage=stage,
        address=address,
        ports=ports,
    )


def _on_node(
    place: Place,
    node: str,
    component: str,
    argv: tuple[str, ...],
    *,
    module: str = "",
    stage: int = STAGE_AGENTS,
    ports: tuple[int, ...] = (),
    env: dict[str, str] | None = None,
) -> ChildSpec:
    files, name = place.layout.node(node), f"{component}-{node}"
    return ChildSpec(
        name=name,
        module=module,
        argv=argv,
        log=str(place.layout.log(name)),
        cgroup=place.cgroup(name),
        netns=str(files.netns),
        mntns=str(files.mntns),
        stage=stage,
        address=place.settings.node_ip(node),
        ports=ports,
        env=env or {},
        node=node,
    )
