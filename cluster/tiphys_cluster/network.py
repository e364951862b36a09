"""The wiring of a cluster: a switch in a namespace of its own, one namespace per node, one leg to the control plane.

    root namespace          switch namespace             node namespaces
    tphN 198.18.N.1/24 ---- leg + br0 + port1 ... ------ eth0 198.18.N.11/24, default route to the leg

The leg is made in the switch's namespace, gets the cluster's run directory as its alias and is then moved: from its
first moment in the root namespace it says whose it is, and of two clusters that want one name the second is refused.
Nothing else is put into the root namespace: no rule, no route beside the leg's own, no setting. (Bridges there would
meet what a Docker engine sets: FORWARD DROP and bridge-nf-call-iptables.) So pods' own addresses mean nothing there,
and the CNI network of the node masquerades what leaves it for anywhere but another pod.

The plan is made as values, to be read in tests; apply() runs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tiphys_cluster import kernel, mounts
from tiphys_cluster.errors import ClusterError
from tiphys_cluster.layout import Layout, NodeLayout
from tiphys_cluster.settings import Settings, write_atomic
from tiphys_component.proc import CommandError, run_command

_TIMEOUT_S = 20.0
_BRIDGE = "br0"
_LEG_PREFIX = "tph"
_INTERFACES = Path("/sys/class/net")

KUBELET_ROOT = Path("/var/lib/kubelet")
FLANNEL_RUN = Path("/run/flannel")
_CONTAINERD_RUN = Path("/run/containerd")
_CNI_CACHE = Path("/var/lib/cni")
SHARED_DIRECTORIES = (_CONTAINERD_RUN, _CNI_CACHE, KUBELET_ROOT, FLANNEL_RUN)

# A node forwards for its pods. Packets between two pods on one bridge must pass the rule sets too, or the answer to a
# call over a service address would come back from the pod's own address; the file exists where br_netfilter does.
_NODE_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/bridge/bridge-nf-call-iptables": "1",
    "net/bridge/bridge-nf-call-ip6tables": "1",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the plan, with what goes to its standard input; may_fail where there may be nothing to do."""

    argv: tuple[str, ...]
    stdin: str = ""
    may_fail: bool = False


def leg_name(settings: Settings) -> str:
    """The control plane's interface in the root namespace; unique on the machine as the network's index is."""
    return f"{_LEG_PREFIX}{settings.network}"


def port_name(settings: Settings, node: str) -> str:
    """A node's port of the switch, in the switch's namespace."""
    return f"port{settings.member(node).number + 1}"


def switch_steps(layout: Layout, settings: Settings, *, pid: int) -> list[Step]:
    """Make the switch namespace, the bridge in it and the control plane's leg, which pid's namespace gets."""
    netns, leg = str(layout.switch_netns), leg_name(settings)
    return [
        Step(("unshare", f"--net={netns}", "true")),
        _ip(
            "link set lo up",
            f"link add {_BRIDGE} type bridge forward_delay 0",
            f"link set {_BRIDGE} up",
            f"link add leg type veth peer name {leg}",
            f"link set leg master {_BRIDGE} up",
            f'link set {leg} alias "{layout.run}"',
            f"link set {leg} netns {pid}",
            netns=netns,
        ),
        _ip(f"address add {settings.leg_ip}/24 dev {leg}", f"link set {leg} up"),
    ]


def namespace_steps(layout: Layout, node: str) -> list[Step]:
    """Make a node's network namespace, and set it up to forward for its pods."""
    netns = str(layout.node(node).netns)
    sysctls = "\n".join(
        f"[ ! -e /proc/sys/{key} ] || echo {value} >/proc/sys/{key}" for key, value in _NODE_SYSCTLS.items()
    )
    return [
        Step(("unshare", f"--net={netns}", "true")),
        _ip("link set lo up", netns=netns),
        Step((*_enter(netns), "sh", "-eu"), sysctls + "\n"),
    ]


def plug_steps(layout: Layout, settings: Settings, node: str) -> list[Step]:
    """Plug a node into the switch; what is left of an earlier plug is taken away first."""
    netns, port = str(layout.node(node).netns), port_name(settings, node)
    return [
        unplug_step(layout, settings, node),
        _ip(
            f"link add {port} type veth peer name eth0 netns {netns}",
            f"link set {port} master {_BRIDGE} up",
            netns=str(layout.switch_netns),
        ),
        _ip(
            "link set eth0 up",
            f"address add {settings.node_ip(node)}/24 dev eth0",
            f"route add default via {settings.leg_ip}",
            netns=netns,
        ),
    ]


def unplug_step(layout: Layout, settings: Settings, node: str) -> Step:
    """Take a node's port off the switch; there may be none."""
    step = _ip(f"link delete {port_name(settings, node)}", netns=str(layout.switch_netns))
    return replace(step, may_fail=True)


def private_directories(layout: Layout, node: str) -> dict[Path, Path]:
    """Fixed directories of the machine, and what a node sees in their place.

    containerd's shims keep their sockets and runc its state in /run/containerd whatever containerd is told, and libcni
    caches results in /var/lib/cni; a node that was switched off would leave them there, under the host's own. CSI
    drivers and device plugins look for the kubelet in /var/lib/kubelet and keep sockets there, whose paths must be
    short; CNI plugins look for the node's subnet in /run/flannel.
    """
    files = layout.node(node)
    return {
        _CONTAINERD_RUN: files.run / "run-containerd",
        _CNI_CACHE: files.home / "cni" / "cache",
        KUBELET_ROOT: files.kubelet_root,
        FLANNEL_RUN: files.run / "flannel",
    }


def mount_namespace_step(layout: Layout, node: str) -> Step:
    """Make a node's mount namespace.

    It hears of the host's mounts and the host never of its own (slave), while inside it mounts spread (shared), as
    volumes with mount propagation need. The copies of namespace files are taken out: each would keep a namespace alive
    for as long as this node lives. Directories that others know by a fixed name are covered by the node's own, each a
    group of its own: what is mounted in one would otherwise be mounted a second time where its files lie.
    """
    script = f"""
for held in {layout.run_root}/*/ns; do umount -R -l "$held" 2>/dev/null || true; done
mount --make-rshared /
"""
    for fixed, own in private_directories(layout, node).items():
        seen, kept = shlex.quote(str(fixed)), shlex.quote(str(own))
        script += f"mkdir -p {seen} {kept}\nmount --bind {kept} {seen}\n"
        script += f"mount --make-private {seen}\nmount --make-shared {seen}\n"
    argv = ("unshare", f"--mount={layout.node(node).mntns}", "--propagation", "slave", "sh", "-eu")
    return Step(argv, script)


def _enter(netns: str) -> tuple[str, ...]:
    return ("nsenter", f"--net={netns}") if netns else ()


def _ip(*lines: str, netns: str = "") -> Step:
    return Step((*_enter(netns), "ip", "-batch", "-"), "\n".join(lines) + "\n")


async def apply(steps: Sequence[Step]) -> None:
    """Run the steps in order. Raises ClusterError at the first that fails."""
    for step in steps:
        try:
            await run_command(step.argv, timeout_s=_TIMEOUT_S, stdin=step.stdin.encode())
        except CommandError as err:
            if step.may_fail:
                continue
            raise ClusterError(f"cannot set up the network: {err}", "`tiphys down` clears what was made.") from err


def prepare_namespace_directory(layout: Layout) -> None:
    """Make the directory that holds namespaces: a mount of its own that spreads to nobody.

    The kernel refuses to keep a mount namespace's file where it could spread into that namespace.
    """
    layout.namespaces.mkdir(parents=True, exist_ok=True)
    if not is_held(layout.namespaces):
        kernel.mount(str(layout.namespaces), layout.namespaces, kernel.MS_BIND)
    kernel.mount("none", layout.namespaces, kernel.MS_PRIVATE)


def is_held(namespace: Path) -> bool:
    """Whether something is mounted on this very path, as on the file of a namespace that lives."""
    return str(namespace) in mounts.parse_mount_points(Path("/proc/self/mountinfo").read_text())


async def ensure_switch(layout: Layout, settings: Settings) -> None:
    """Have the switch and the control plane's leg; what stands is left alone, what stands half is made anew."""
    prepare_namespace_directory(layout)
    if is_held(layout.switch_netns) and has_leg(layout, settings):
        return
    await remove_legs(layout)
    _remake(layout.switch_netns)
    await apply(switch_steps(layout, settings, pid=os.getpid()))


class Wiring(enum.Enum):
    """What stands of a node's wiring. LOST: a namespace is gone, and with it all that ran there lost its node."""

    LOST = "lost"
    UNPLUGGED = "unplugged"
    READY = "ready"


async def look_at_node(layout: Layout, settings: Settings, node: str) -> Wiring:
    """What stands of a node's wiring; the switch stands already."""
    files = layout.node(node)
    if not (is_held(files.netns) and is_held(files.mntns)):
        return Wiring.LOST
    mark = _read_mark(files)
    if mark is None:
        return Wiring.LOST
    if mark != _switch_mark(layout) or not await _has_address(files, settings.node_ip(node)):
        return Wiring.UNPLUGGED
    return Wiring.READY


async def ensure_node(layout: Layout, settings: Settings, node: str) -> Wiring:
    """Have a node's namespaces, plugged in; what stands is left alone. Returns what stood before.

    Where it was LOST, what still runs in the old namespaces must have been ended before.
    """
    files, stood = layout.node(node), await look_at_node(layout, settings, node)
    if stood is Wiring.LOST:
        _remake(files.netns)
        _remake(files.mntns)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(apply(namespace_steps(layout, node)), name=f"network of {node}")
            tasks.create_task(apply([mount_namespace_step(layout, node)]), name=f"mounts of {node}")
    if stood is not Wiring.READY:
        await apply(plug_steps(layout, settings, node))
        write_atomic(_ready_mark(files), _switch_mark(layout))
    return stood


async def remove_node(layout: Layout, settings: Settings, node: str) -> None:
    """Take a node's port, namespaces and mounts away; nothing may run there any more. Succeeds when there are none."""
    files = layout.node(node)
    if is_held(layout.switch_netns):
        await apply([unplug_step(layout, settings, node)])
    for namespace in (files.netns, files.mntns):
        kernel.unmount_detached(str(namespace))
        namespace.unlink(missing_ok=True)
    _ready_mark(files).unlink(missing_ok=True)


def _read_mark(files: NodeLayout) -> str | None:
    try:
        return _ready_mark(files).read_text()
    except FileNotFoundError:
        return None


def _switch_mark(layout: Layout) -> str:
    # A switch made anew has another number: whoever was plugged into the old one is so no longer.
    return str(layout.switch_netns.stat().st_ino)


async def _has_address(files: NodeLayout, address: str) -> bool:
    look = (*_enter(str(files.netns)), "ip", "-oneline", "-4", "address", "show", "dev", "eth0")
    try:
        said = await run_command(look, timeout_s=_TIMEOUT_S)
    except CommandError:
        return False
    return f" {address}/".encode() in said.stdout


def _ready_mark(files: NodeLayout) -> Path:
    return files.run / "network-ready"


def _remake(namespace: Path) -> None:
    kernel.unmount_detached(str(namespace))
    namespace.touch()


def leg_owner(index: int) -> Path | None:
    """The run directory of the cluster that has the leg of this network, None when there is no such leg.

    Path() stands for a leg that does not say whose it is.
    """
    try:
        return Path(Path(_INTERFACES, f"{_LEG_PREFIX}{index}", "ifalias").read_text().strip())
    except OSError:
        return None


def legs() -> dict[int, Path]:
    """The legs of all clusters on this machine, whatever their run roots: index of the network to run directory."""
    names = [path.name.removeprefix(_LEG_PREFIX) for path in _INTERFACES.glob(f"{_LEG_PREFIX}*")]
    found = {int(name): leg_owner(int(name)) for name in names if name.isdecimal()}
    return {index: owner for index, owner in found.items() if owner is not None}


def check_no_namesake(layout: Layout) -> None:
    """Raises ClusterError where a cluster of this name runs under another run root: they would share their cgroups."""
    for owner in legs().values():
        if owner.name == layout.name and owner != layout.run:
            raise ClusterError(
                f"a cluster {layout.name!r} runs on this machine already, under {owner.parent}",
                f"Choose another --name, or give its run root: --run-root {owner.parent}",
            )


def has_leg(layout: Layout, settings: Settings) -> bool:
    """Whether the control plane's leg is there, and is this cluster's own."""
    return leg_owner(settings.network) == layout.run


async def remove_legs(layout: Layout) -> None:
    """Delete the control plane's leg; succeeds when there is none. Other clusters' are left alone."""
    for index, owner in legs().items():
        if owner == layout.run:
            with contextlib.suppress(CommandError):
                await run_command(("ip", "link", "delete", f"{_LEG_PREFIX}{index}"), timeout_s=_TIMEOUT_S)
