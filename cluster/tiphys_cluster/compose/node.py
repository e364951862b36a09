"""The first process of a node's container: a zygote that runs the node's processes, and starts again what dies.

The container is to its node what a network and a mount namespace are in `tiphys up`; the same parts run in it:
containerd, tiphys-cni, kubelet, kube-proxy and flannel. What lasts lies in one volume; /run ends with the container,
so that a restart of the container is to the node what a power cut is.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tiphys_client.kubeconfig import load
from tiphys_cluster import cgroups, containerd, kernel, mounts, readiness
from tiphys_cluster.child import ChildSpec
from tiphys_cluster.components import STAGE_AGENTS, STAGE_RUNTIME
from tiphys_cluster.control import ZygoteClient
from tiphys_cluster.errors import ClusterError
from tiphys_cluster.images.builtin import PAUSE
from tiphys_cluster.layout import CACHE, NodeLayout
from tiphys_cluster.network import FLANNEL_RUN, KUBELET_ROOT
from tiphys_cluster.settings import write_atomic
from tiphys_cluster.zygote import Zygote, lock_records
from tiphys_component.clock import Clock, SystemClock
from tiphys_component.log import configure, get_logger
from tiphys_component.options import LogOptions, flag, parse
from tiphys_cri.containerd import import_image
from tiphys_cri.endpoint import channel
from tiphys_cri.errors import CRIError

_RUNTIME_TIMEOUT_S = 60.0
_APISERVER_STEP_S = 0.1
_CGROUPS = Path("/sys/fs/cgroup")
_GROUP = "tiphys"
_CNI_CACHE = Path("/var/lib/cni")
# Where the first process of the container writes, so that `docker-compose logs` shows every process of the node.
_LOG = "/proc/1/fd/1"
# A node forwards for its pods. The second exists where the kernel filters bridged packets: then those between two pods
# of the node pass the rule sets too, as the answer to a call over a service address must.
_SYSCTLS = {"net/ipv4/ip_forward": "1", "net/bridge/bridge-nf-call-iptables": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(LogOptions):
    """A node in a container: containerd and the node's agents under one supervisor."""

    name: str = flag("--node-name", help="name of this node")
    address: str = flag("--node-ip", help="its address on the network of the containers")
    resolver: str = flag("--resolver", help="address of a DNS server that pods may ask for names outside the cluster")
    backend: str = flag("--flannel-backend", default="vxlan", help="how packets get to other nodes")
    pki: Path = flag("--pki", default=Path("/pki"), help="folder of this node's certificates and kubeconfigs")
    home: Path = flag("--home", default=Path("/var/lib/tiphys"), help="volume that outlives the container")
    run: Path = flag("--run", default=Path("/run/tiphys"), help="folder of what ends with the container")
    pod_cidr: str = flag("--pod-cidr", default="10.244.0.0/16", help="addresses of all pods")
    dns_ip: str = flag("--cluster-dns", default="10.96.0.10", help="address of the cluster's DNS service")


def layout(options: Options) -> NodeLayout:
    """The node's files, as those of `tiphys up` lie to each other."""
    return NodeLayout(home=options.home, run=options.run, netns=Path(), mntns=Path())


def runtime(options: Options, group: str) -> list[ChildSpec]:
    """What must answer before there can be a kubelet."""
    files = layout(options)
    cni = (
        f"--socket={files.cni_socket}",
        f"--bin-dir={files.cni_bin}",
        f"--conf-dir={files.cni_conf}",
        f"--data-dir={files.cni_state}",
        f"--kubeconfig={options.pki / 'kubelet.conf'}",
        f"--node-name={options.name}",
        "--network=flannel",
        f"--subnet-file={_subnet_file()}",
    )
    return [
        _child("containerd", "", containerd.command(files), group, stage=STAGE_RUNTIME),
        _child("tiphys-cni", "tiphys_cni.service", cni, group, stage=STAGE_RUNTIME),
    ]


def agents(options: Options, group: str) -> list[ChildSpec]:
    """What speaks to the API server for this node."""
    files = layout(options)
    kubelet = (
        f"--kubeconfig={options.pki / 'kubelet.conf'}",
        f"--hostname-override={options.name}",
        f"--node-ip={options.address}",
        f"--address={options.address}",
        f"--root-dir={KUBELET_ROOT}",
        f"--pod-log-dir={files.pod_logs}",
        f"--container-runtime-endpoint=unix://{files.containerd_socket}",
        f"--cgroup-root=/{_GROUP}",
        f"--cluster-dns={options.dns_ip}",
        f"--resolv-conf={_resolv_conf(options)}",
        f"--pod-infra-container-image={PAUSE}",
        *_serving(options, "kubelet"),
    )
    kube_proxy = (
        f"--kubeconfig={options.pki / 'kube-proxy.conf'}",
        f"--hostname-override={options.name}",
        f"--bind-address={options.address}",
        f"--cluster-cidr={options.pod_cidr}",
        *_serving(options, "kube-proxy"),
    )
    flannel = (
        f"--kubeconfig={options.pki / 'flannel.conf'}",
        f"--node-name={options.name}",
        f"--backend={options.backend}",
        f"--node-ip={options.address}",
        f"--pod-cidr={options.pod_cidr}",
        f"--subnet-file={_subnet_file()}",
        f"--grpc-address={options.address}",
        *_serving(options, "flannel"),
    )
    return [
        _child("flannel", "tiphys_cni.flannel.main", flannel, group),
        _child("kubelet", "tiphys_kubelet.main", kubelet, group),
        _child("kube-proxy", "tiphys_kube_proxy.main", kube_proxy, group),
    ]


def _serving(options: Options, component: str) -> tuple[str, ...]:
    return (
        f"--tls-cert-file={options.pki / component}.crt",
        f"--tls-private-key-file={options.pki / component}.key",
        f"--client-ca-file={options.pki / 'ca.crt'}",
    )


def _child(name: str, module: str, argv: tuple[str, ...], group: str, *, stage: int = STAGE_AGENTS) -> ChildSpec:
    return ChildSpec(name=name, module=module, argv=argv, log=_LOG, cgroup=f"{group}/{name}", stage=stage)


def _subnet_file() -> Path:
    """What flannel writes once it holds the node's subnet, and the CNI service waits for."""
    return FLANNEL_RUN / "subnet.env"


def _resolv_conf(options: Options) -> Path:
    return options.run / "resolv.conf"


def prepare(options: Options) -> str:
    """Make the container a node: mounts, kernel settings, cgroups, files. The cgroup for its processes is returned.

    Raises OSError where the container is not privileged; ClusterError where there are no cgroups.
    """
    # Mounts spread inside the container, as volumes with mount propagation need; docker gives it private ones.
    kernel.mount("none", Path("/"), kernel.MS_REC | kernel.MS_SHARED)
    _cover(KUBELET_ROOT, layout(options).kubelet_root)
    _cover(_CNI_CACHE, options.home / "cni" / "cache")
    for key, value in _SYSCTLS.items():
        path = Path("/proc/sys", key)
        if path.exists():
            path.write_text(value)
    _write_files(options)
    leave_root_group(_CGROUPS)
    return f"{cgroups.choose_tracking(cgroups.read_hierarchies()).root}/{_GROUP}/system"


def _cover(fixed: Path, own: Path) -> None:
    """Put a folder of the volume where others look for it, in a group of mounts of its own (see network)."""
    for path in (fixed, own):
        path.mkdir(parents=True, exist_ok=True)
    kernel.mount(str(own), fixed, kernel.MS_BIND)
    kernel.mount("none", fixed, kernel.MS_PRIVATE)
    kernel.mount("none", fixed, kernel.MS_SHARED)


def _write_files(options: Options) -> None:
    files = layout(options)
    for path in (files.pod_logs, files.registries, files.cni_bin, files.cni_conf, files.cni_state, options.run):
        path.mkdir(parents=True, exist_ok=True)
    # The resolver of docker's networks answers on a loopback address, where no pod reaches it.
    write_atomic(_resolv_conf(options), f"nameserver {options.resolver}\n", mode=0o644)
    file_system = mounts.parse_file_system(Path("/proc/self/mountinfo").read_text(), files.home)
    config = containerd.ContainerdOptions(
        sandbox_image=PAUSE,
        can_lower_oom_score=kernel.has_capability(kernel.CAP_SYS_RESOURCE),
        snapshotter=containerd.choose_snapshotter(file_system),
    )
    write_atomic(files.containerd_config, containerd.render_config(files, config), mode=0o644)


def leave_root_group(root: Path) -> None:
    """On cgroup v2 move the container's processes to a leaf and let its other groups have controllers.

    A group with processes may have none below (no internal processes, kernel cgroup-v2.rst). Nothing on v1.
    """
    controllers = root / "cgroup.controllers"
    if not controllers.exists():
        return
    leaf = root / "init"
    leaf.mkdir(exist_ok=True)
    for pid in (root / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            (leaf / "cgroup.procs").write_text(pid)
    wanted = " ".join(f"+{name}" for name in controllers.read_text().split())
    (root / "cgroup.subtree_control").write_text(wanted)


async def start(options: Options, group: str, zygote_socket: Path, clock: Clock) -> None:
    """Start the node's processes in order. Raises ClusterError when containerd does not come up."""
    files, later = layout(options), agents(options, group)
    async with await ZygoteClient.connect(zygote_socket) as zygote:
        for spec in runtime(options, group):
            await zygote.start(spec)
        await zygote.preload([spec.module for spec in later])
        await readiness.wait_until(
            functools.partial(readiness.is_serving, files.containerd_socket),
            what="containerd",
            timeout_s=_RUNTIME_TIMEOUT_S,
            clock=clock,
            log=Path(os.devnull),
        )
        await ensure_images(files, sorted((CACHE / "images").glob("*.tar")))
        # Agents that find nobody wait longer with each try; at the first start of all the API server comes last.
        await wait_for_apiserver(load(options.pki / "kubelet.conf").grpc_address, clock)
        for spec in later:
            await zygote.start(spec)


async def wait_for_apiserver(address: str, clock: Clock) -> None:
    """Return when HOST:PORT takes connections, however long that lasts."""
    host, _, port = address.rpartition(":")
    while not await readiness.is_listening(host, int(port)):
        await clock.sleep(_APISERVER_STEP_S)


async def ensure_images(files: NodeLayout, archives: Sequence[Path]) -> None:
    """Have the images that came with the node's own in its containerd; which it has is noted beside its data.

    Raises ClusterError.
    """
    known = _read_known(files)
    for path in archives:
        if path.name in known:
            continue
        try:
            async with channel(f"unix://{files.containerd_socket}") as connection:
                await import_image(connection, path)
        except CRIError as err:
            raise ClusterError(f"cannot import {path}: {err}") from err
    write_atomic(files.imported_images, json.dumps([path.name for path in archives]), mode=0o644)


def _read_known(files: NodeLayout) -> set[str]:
    with contextlib.suppress(FileNotFoundError, ValueError):
        return set(json.loads(files.imported_images.read_text()))
    return set()


def _fork_starter(options: Options, group: str, zygote_socket: Path) -> None:
    """Have start() run in a process of its own, as the zygote may have no loop; its failure ends the container."""
    first = os.getpid()
    if os.fork() != 0:
        return
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        asyncio.run(start(options, group, zygote_socket, SystemClock()))
        code = 0
    except (ClusterError, OSError) as err:
        get_logger("node").error("node did not start", node=options.name, err=str(err))
    finally:
        if code != 0:
            os.kill(first, signal.SIGTERM)
        # The frames above belong to the zygote.
        os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the node until SIGTERM, then stops its processes in order; the exit code."""
    options = parse(Options, argv, prog="node")
    configure(options.log_level, options.log_format)
    group = prepare(options)
    records, socket = options.run / "children", options.run / "zygote.sock"
    lock = lock_records(records)
    if lock is None:
        return 1
    zygote = Zygote(socket, records, lock=lock, clock=SystemClock(), log=get_logger("node"))
    zygote.run(lambda: _fork_starter(options, group, socket))
    return 0


if __name__ == "__main__":
    sys.exit(main())
