"""What a cluster's processes and nodes are doing, asked of the zygote, the ports and the API server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from tiphys_cluster import claims, readiness
from tiphys_cluster.api import api_of
from tiphys_cluster.control import ZygoteClient
from tiphys_cluster.errors import NotRunningError
from tiphys_cluster.layout import Layout
from tiphys_cluster.settings import Settings


@dataclass(frozen=True, slots=True)
class Process:
    """One supervised process; answers says for each port whether it accepts connections."""

    name: str
    node: str
    state: str
    pid: int
    restarts: int
    last_exit: str
    address: str
    answers: tuple[tuple[int, bool], ...]

    @property
    def is_healthy(self) -> bool:
        """Running, and listening where it should."""
        return self.state == "running" and all(ok for _, ok in self.answers)


@dataclass(frozen=True, slots=True)
class Node:
    """One node as the API server sees it."""

    name: str
    address: str
    ready: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Status:
    """A cluster at one moment."""

    settings: Settings
    layout: Layout
    processes: tuple[Process, ...]
    nodes: tuple[Node, ...]
    api_ready: bool

    @property
    def is_healthy(self) -> bool:
        """Whether everything is as `up` leaves it."""
        processes = all(process.is_healthy for process in self.processes)
        return self.api_ready and processes and all(node.ready for node in self.nodes)


async def read_status(layout: Layout) -> Status:
    """Ask everything at once. Raises NotRunningError when the cluster is not up."""
    claim = claims.read_claims(layout.run_root).get(layout.name)
    if claim is None:
        raise NotRunningError(f"cluster {layout.name!r} is not running", f"Start it: tiphys up --name {layout.name}")
    try:
        async with await ZygoteClient.connect(layout.zygote_socket) as zygote:
            # The control plane in the order of its start, then node by node.
            children = sorted(await zygote.children(), key=lambda child: _rank(claim.settings, child["node"]))
    except NotRunningError as err:
        raise NotRunningError(
            f"cluster {layout.name!r} has no supervisor any more; what it ran may still run",
            f"Bring it back with tiphys up --name {layout.name}, or clear it with tiphys down --name {layout.name}",
        ) from err
    api = api_of(layout, claim.settings)
    async with asyncio.TaskGroup() as tasks:
        processes = [tasks.create_task(_look_at(child), name=child["name"]) for child in children]
        ready = tasks.create_task(api.is_ready(), name="API server")
        nodes = [tasks.create_task(api.get_json(f"/api/v1/nodes/{name}"), name=name) for name in claim.settings.nodes]
    return Status(
        settings=claim.settings,
        layout=layout,
        processes=tuple(task.result() for task in processes),
        nodes=tuple(
            describe_node(name, claim.settings.node_ip(name), task.result())
            for name, task in zip(claim.settings.nodes, nodes, strict=True)
        ),
        api_ready=ready.result(),
    )


def _rank(settings: Settings, node: str) -> int:
    return settings.nodes.index(node) if node in settings.nodes else -1


async def _look_at(child: dict[str, Any]) -> Process:
    answers = [(port, await readiness.is_listening(child["address"], port)) for port in child["ports"]]
    return Process(
        name=child["name"],
        node=child["node"],
        state=child["state"],
        pid=child["pid"],
        restarts=child["restarts"],
        last_exit=child["last_exit"],
        address=child["address"],
        answers=tuple(answers),
    )


def describe_node(name: str, address: str, node: dict[str, Any] | None) -> Node:
    """A node from its JSON; None is a node that the API server does not have, or no API server."""
    if node is None:
        return Node(name, address, ready=False, reason="unknown to the API server")
    conditions = node.get("status", {}).get("conditions") or []
    ready: dict[str, Any] = next((entry for entry in conditions if entry.get("type") == "Ready"), {})
    is_ready = ready.get("status") == "True"
    return Node(name, address, ready=is_ready, reason="" if is_ready else ready.get("message") or "not Ready")
