"""What the user wishes against what is there: which cluster is meant, and with which settings it starts."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path

from tiphys_cluster import claims, pod_network, preflight
from tiphys_cluster.child import ChildSpec
from tiphys_cluster.errors import ClusterError
from tiphys_cluster.layout import CACHE, RUN, Layout, check_name, default_home
from tiphys_cluster.ports import Ports
from tiphys_cluster.processes import ProcessId
from tiphys_cluster.settings import MAX_NODES, FlannelBackend, Member, Settings, StoreKind, load, numbered

_FIRST_ETCD_PORT = 23790
_DEVICES = re.compile(r"(dra:)?(gpu|[a-z0-9.-]+/[A-Za-z0-9._-]+):[1-9][0-9]{0,2}(x[A-Za-z0-9._-]+)?")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asked for; None leaves a choice as it was, or to its default."""

    name: str = "default"
    home: Path | None = None
    store: StoreKind | None = None
    port_offset: int | None = None
    nodes: int | None = None
    devices: str | None = None
    flannel_backend: FlannelBackend | None = None
    pod_cidr: str | None = None
    cni_conf: Path | None = None
    cni_bin_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a cluster may put things on this machine, how it is looked at, and the proxy that it has to use, if any."""

    run_root: Path = RUN
    cache: Path = CACHE
    proxy_url: str = ""
    checks: preflight.Machine = field(default_factory=preflight.Machine)


def merge(wish: Wish, kept: Settings | None) -> Settings:
    """The settings to start with. Raises ClusterError when the wish contradicts what the home holds."""
    settings = kept or Settings(wish.name)
    if kept is not None and kept.name != wish.name:
        raise ClusterError(
            f"the home belongs to cluster {kept.name!r}, not {wish.name!r}", "Give another directory: --home DIR"
        )
    if kept is not None and wish.store is not None and wish.store != kept.store:
        raise ClusterError(
            f"cluster {kept.name!r} keeps its data in {kept.store}; with {wish.store} it would start empty",
            f"Start another one (--name N), or give this one up: tiphys down --name {kept.name} --delete",
        )
    if kept is not None and wish.nodes is not None and wish.nodes != len(kept.members):
        named = "" if kept.name == "default" else f" --name {kept.name}"
        raise ClusterError(
            f"cluster {kept.name!r} has {len(kept.members)} nodes ({', '.join(kept.nodes)}), not {wish.nodes}",
            f"Change it while it runs: tiphys node add{named}, tiphys node remove NODE{named}",
        )
    if kept is None:
        settings = replace(settings, members=_first_members(wish))
    offset = settings.port_offset if wish.port_offset is None else wish.port_offset
    try:
        Ports(offset)
    except ValueError as err:
        raise ClusterError(str(err), "Choose another --port-offset.") from err
    backend = wish.flannel_backend or settings.flannel_backend
    settings = _with_pod_network(settings, wish, is_new=kept is None)
    return replace(settings, store=wish.store or settings.store, port_offset=offset, flannel_backend=backend)


def _with_pod_network(settings: Settings, wish: Wish, *, is_new: bool) -> Settings:
    if wish.pod_cidr is not None:
        pod_cidr = pod_network.check_pod_cidr(wish.pod_cidr, nodes=len(settings.members))
        if not is_new and pod_cidr != settings.pod_cidr:
            raise ClusterError(
                f"cluster {settings.name!r} has its pods in {settings.pod_cidr}, not {pod_cidr}",
                "Nodes keep their ranges; start another cluster for this one: --name N",
            )
        settings = replace(settings, pod_cidr=pod_cidr)
    if wish.cni_conf is not None:
        settings = replace(settings, cni_conf=pod_network.read_network_list(wish.cni_conf))
    if wish.cni_bin_dir is not None:
        settings = replace(settings, cni_bin_dir=pod_network.check_bin_dir(wish.cni_bin_dir))
    return settings


def _first_members(wish: Wish) -> tuple[Member, ...]:
    count = 1 if wish.nodes is None else wish.nodes
    if not 1 <= count <= MAX_NODES:
        raise ClusterError(
            f"a cluster on one machine has 1 to {MAX_NODES} nodes, not {count}", "Choose another --nodes."
        )
    return numbered(*(f"node-{number + 1}" for number in range(count)), devices=check_devices(wish.devices or ""))


def check_devices(text: str) -> str:
    """What a device plugin is to simulate: kind and number, as gpu:8 or gpu:8xH100; empty for none. ClusterError.

    With dra: before it a DRA driver offers the devices to claims instead.
    """
    if text and not _DEVICES.fullmatch(text):
        raise ClusterError(f"simulated devices {text!r} are not understood", "Name a kind and how many: --fake gpu:8")
    return text


def layout_for(name: str, home: Path | None, run_root: Path) -> Layout:
    """The layout of the cluster of that name: a running one where it runs, otherwise at home or the default place.

    Raises ClusterError when it runs with another home.
    """
    check_name(name)
    claim = claims.read_claims(run_root).get(name)
    if claim is None:
        return Layout(name, (home or default_home(name)).absolute(), run_root)
    if home is not None and home.absolute() != claim.home:
        raise ClusterError(
            f"cluster {name!r} is up with its home in {claim.home}",
            f"Choose another --name, or stop it: tiphys down --name {name}",
        )
    return Layout(name, claim.home, run_root)


def kept_settings(layout: Layout) -> Settings | None:
    """What the cluster was last started with: from its home, or, if that was deleted under it, from its claim."""
    settings = load(layout.settings)
    if settings is not None:
        return settings
    claim = claims.read_claims(layout.run_root).get(layout.name)
    return claim.settings if claim is not None else None


def read_living(layout: Layout) -> list[ChildSpec]:
    """The supervised processes that run, as recorded; also those whose zygote is dead."""
    living: list[ChildSpec] = []
    for path in layout.children.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(path.read_text())
            if ProcessId(record["pid"], record["start"]).is_alive():
                living.append(ChildSpec.from_dict(record["spec"]))
    return living


def free_port_pair(preferred: int) -> int:
    """A port of loopback that is free, and the next one too: the preferred one if it is, else the first from 23790.

    Raises ClusterError when there is none.
    """
    usual = range(_FIRST_ETCD_PORT, _FIRST_ETCD_PORT + 200, 2)
    for port in [preferred, *usual] if preferred else usual:
        if _is_free(port) and _is_free(port + 1):
            return port
    raise ClusterError("no two neighbouring ports from 23790 on are free for etcd", "Stop what listens there.")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
