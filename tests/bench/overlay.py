"""Pod to pod over two nodes: flannel's VXLAN beside one made by hand, and the other back ends.

Run: python -m tests.bench.overlay. A paired run, A B A B, between the same two pods, which have an address on either
overlay; needs root. What counts is the ratio: the machine's own speed, and what else it does, cancel out.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.figures import Figure, median, print_figures, print_heading, skipped
from tests.support.flannel import FlannelCluster, FlannelNode, wait_until
from tests.support.lan import Pod, throughput_gbit_s

_NAME = "VXLAN pod to pod: made by hand, over flannel's"
_LEAST_SHARE = 0.85
_PAIRS = 7
_SECONDS = 1.0
_MACS = ("02:00:00:00:00:0a", "02:00:00:00:00:0b")


def measure_overlay() -> list[Figure]:
    """How much faster a device by hand is; and what every back end carries."""
    missing = _missing()
    if missing:
        return [skipped(_NAME, missing, "times")]
    with TemporaryDirectory(prefix="tiphys-bench-") as folder:
        ours, theirs = _measure_vxlan(Path(folder))
        others = {name: _measure_backend(Path(folder), name) for name in ("host-gw", "udp")}
    note = f"{median(theirs):.2f} and {median(ours):.2f} Gbit/s, one TCP connection, paired"
    # Of each pair the ratio, then the middle one: pairs stand side by side in time.
    ratio = median([by_hand / flannel for flannel, by_hand in zip(ours, theirs, strict=True)])
    return [
        Figure(_NAME, ratio, "times", 1 / _LEAST_SHARE, note),
        *(Figure(f"{name} pod to pod", speed, "Gbit/s") for name, speed in others.items()),
    ]


def _missing() -> str:
    if os.geteuid() != 0:
        return "needs root"
    absent = [name for name in ("ip", "bridge", "nft", "nsenter") if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def _measure_vxlan(folder: Path) -> tuple[list[float], list[float]]:
    place = folder / "vxlan"
    place.mkdir()
    with FlannelCluster(place, "vxlan") as cluster:
        (first, near), (second, far) = _pair(cluster)
        for number, (node, peer, pod) in enumerate(((first, second, near), (second, first, far)), start=1):
            _overlay_by_hand(node, peer, pod, number)
        by_hand = Pod(far.name, "10.245.2.2")
        assert near.can_ping(by_hand.address)
        # The first connection of each warms up what both use.
        for sink in (far, by_hand):
            throughput_gbit_s(near, sink, seconds=_SECONDS / 2)
        found = [
            (throughput_gbit_s(near, far, seconds=_SECONDS), throughput_gbit_s(near, by_hand, seconds=_SECONDS))
            for _ in range(_PAIRS)
        ]
    return [pair[0] for pair in found], [pair[1] for pair in found]


def _measure_backend(folder: Path, name: str) -> float:
    place = folder / name
    place.mkdir()
    with FlannelCluster(place, name) as cluster:
        (_, near), (_, far) = _pair(cluster)
        return median([throughput_gbit_s(near, far, seconds=_SECONDS) for _ in range(3)])


def _pair(cluster: FlannelCluster) -> tuple[tuple[FlannelNode, Pod], tuple[FlannelNode, Pod]]:
    made = cluster.running(), cluster.running()
    for node, _ in made:
        node.wait_lease()
    wait_until(lambda: made[0][1].can_ping(made[1][1].address), timeout_s=10, what="the first packet")
    return made


def _overlay_by_hand(node: FlannelNode, peer: FlannelNode, pod: Pod, number: int) -> None:
    """What an operator would type: a device, an address, and three entries for the other node."""
    other = 3 - number
    here, there = f"10.245.{number}", f"10.245.{other}"
    ip = node.space.ip
    ip("link", "add", "hand", "address", _MACS[number - 1], "mtu", "1450", "type", "vxlan", "id", "99", "dstport",
       "4789", "local", node.space.address, "dev", "eth0", "nolearning")  # fmt: skip
    ip("addr", "add", f"{here}.0/32", "dev", "hand")
    ip("link", "set", "hand", "up")
    mac = _MACS[other - 1]
    node.space.run("bridge", "fdb", "append", mac, "dev", "hand", "dst", peer.space.address, "self", "permanent")
    ip("neigh", "add", f"{there}.0", "lladdr", mac, "dev", "hand", "nud", "permanent")
    ip("route", "add", f"{there}.0/24", "via", f"{there}.0", "dev", "hand", "onlink")
    ip("addr", "add", f"{here}.1/24", "dev", "cni0")
    pod.ip("addr", "add", f"{here}.2/24", "dev", "eth0")
    # Otherwise answers would come from the pod's first address.
    pod.ip("route", "add", f"{there}.0/24", "via", f"{here}.1", "src", f"{here}.2")


if __name__ == "__main__":
    print_heading()
    print_figures(measure_overlay())
