"""The lower half of a cluster, for tests: switch, nodes with containerd, zygote; no control plane."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tiphys_cluster import cgroups, claims, components, containerd, kernel, network, readiness
from tiphys_cluster.components import Place
from tiphys_cluster.control import ZygoteClient, ensure_zygote
from tiphys_cluster.down import Teardown
from tiphys_cluster.images.builtin import PAUSE
from tiphys_cluster.layout import Layout
from tiphys_cluster.mounts import parse_mount_points
from tiphys_cluster.progress import Silent
from tiphys_cluster.settings import Settings, numbered, write_atomic
from tiphys_component.clock import SystemClock

# Far from what clusters of this machine take.
NETWORK = 490
NODE = "node-1"


class Bed:
    """One cluster's lower half: switch, node, zygote; control plane left out."""

    def __init__(self, root: Path, name: str, number: int, nodes: int = 1) -> None:
        self.layout = Layout(name, root / name, Path("/run/tiphys-test") / str(os.getpid()))
        members = numbered(*(f"node-{index + 1}" for index in range(nodes)))
        self.settings = Settings(name, network=number, members=members)
        tracking = cgroups.choose_tracking(cgroups.read_hierarchies())
        self.place = Place(self.layout, self.settings, str(tracking.root))

    async def wire(self) -> None:
        """Switch and nodes."""
        claims.write_claim(self.layout, self.settings)
        await network.ensure_switch(self.layout, self.settings)
        for node in self.settings.nodes:
            await network.ensure_node(self.layout, self.settings, node)

    async def start_containerd(self, *, extra: str = "") -> ZygoteClient:
        """The nodes' containerds, up to their sockets; extra is put at the end of their configuration."""
        zygote = await ensure_zygote(self.layout)
        await zygote.start(components.keeper(self.place))
        for node in self.settings.nodes:
            files = self.layout.node(node)
            options = containerd.ContainerdOptions(PAUSE, kernel.has_capability(kernel.CAP_SYS_RESOURCE))
            write_atomic(files.containerd_config, containerd.render_config(files, options) + extra)
            await zygote.start(components.runtime(self.place, node))
        for node in self.settings.nodes:
            await self.wait_served(node)
        return zygote

    async def wait_served(self, node: str = NODE) -> None:
        """Until containerd's socket accepts."""
        await readiness.wait_until(
            lambda: readiness.is_serving(self.layout.node(node).containerd_socket),
            what="containerd",
            timeout_s=20,
            clock=SystemClock(),
            log=self.layout.log(f"containerd-{node}"),
        )

    async def down(self) -> None:
        """Everything away."""
        teardown = Teardown(self.layout, self.settings, clock=SystemClock(), progress=Silent())
        await teardown.run(delete_home=True)

    def inside(self, *argv: str) -> str:
        """What a command says in the node's namespaces."""
        files = self.layout.node(NODE)
        enter = ["nsenter", f"--net={files.netns}", f"--mount={files.mntns}"]
        return subprocess.run([*enter, *argv], check=True, capture_output=True, text=True, timeout=10).stdout


def mount_points() -> list[str]:
    """Where something is mounted, outside any node."""
    return parse_mount_points(Path("/proc/self/mountinfo").read_text())


def traces(layout: Layout, settings: Settings) -> list[str]:
    """Everything of a cluster that can be seen on the machine."""
    found = [point for point in mount_points() if point.startswith((str(layout.run), str(layout.home)))]
    found += [str(tree) for tree in cgroups.trees(layout.cgroup)]
    found += [network.leg_name(settings)] if network.has_leg(layout, settings) else []
    found += [str(path) for path in (layout.run, layout.home) if path.exists()]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(layout.run) in command or str(layout.home) in command:
            found.append(command)
    return found
