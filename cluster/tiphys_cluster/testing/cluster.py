"""The cluster of tests: API server, controller manager and scheduler as they are, hollow nodes and volumes, faults.

    with virtual_time() as (runner, clock):
        async def main():
            async with cluster(clock, seed=7, faults=MANY) as made:
                await made.nodes.add("n1")
                await made.client.create(deployment)
                await made.until(lambda: rolled_out(made), within_s=600)
        runner.run(main())

On a virtual clock two runs of one seed are alike to the bit. It runs on the machine's clock too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tiphys_client.client import Client
from tiphys_client.kubeconfig import ClientConfig
from tiphys_client.rest import PathReader
from tiphys_cluster.testing.api_server import ADMIN, SimulatedApiServer, api_server
from tiphys_cluster.testing.clocks import WallClock
from tiphys_cluster.testing.faults import NONE, Faults, FaultyTransport
from tiphys_cluster.testing.hollow_metrics import FaultyReader, HollowMetrics
from tiphys_cluster.testing.hollow_nodes import HollowNodes, Pace
from tiphys_cluster.testing.hollow_volumes import HollowVolumes
from tiphys_cluster.testing.incarnations import Incarnations, Start
from tiphys_component.app import start_loop
from tiphys_component.clock import Clock
from tiphys_controller_manager.main import ControllerManager
from tiphys_controller_manager.options import Options as ManagerOptions
from tiphys_scheduler.main import SchedulerService
from tiphys_scheduler.options import Options as SchedulerOptions

MANAGER = "kube-controller-manager"
_SCHEDULER = "kube-scheduler"
_API_SERVER = "kube-apiserver"
_LOOK_EVERY_S = 2.0
_LOOK_SELDOM_S = 20.0
_NODE_IS_AWAY_S = 90.0
# Read by nobody: the road is given.
_NO_FILE = Path("unused")


class NotReached(AssertionError):
    """What was waited for did not come within its time."""


@dataclass(slots=True)
class Cluster:
    """A running cluster. client is an administrator's whose calls always arrive; faults may be changed at any time."""

    server: SimulatedApiServer
    client: Client
    nodes: HollowNodes
    clock: Clock
    faults: Faults
    processes: dict[str, Incarnations] = field(default_factory=dict)
    metrics: HollowMetrics = field(init=False)
    # The wall clock of each process, by its name.
    clocks: dict[str, WallClock] = field(default_factory=dict)
    # Nodes that vanished, with the moment at which each comes back.
    _lost: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.metrics = HollowMetrics(self.nodes.pods, self.clock)

    async def revision(self) -> int:
        """The newest revision of the store."""
        return await self.server.store.revision()

    async def lose_node(self, name: str) -> None:
        """Have a node vanish, and come back with nothing on it a while later."""
        if name in self.nodes.names():
            self._lost[name] = self.clock.monotonic() + _NODE_IS_AWAY_S
            await self.nodes.vanish(name)

    async def find_nodes(self) -> None:
        """Bring lost nodes back when it is time, until cancelled."""
        while True:
            await self.clock.sleep(_LOOK_EVERY_S)
            for name, due in list(self._lost.items()):
                if self.clock.monotonic() >= due:
                    del self._lost[name]
                    await self.nodes.add(name)

    def set_clocks(self, wrong_s: float = 0.0, of: str = "") -> None:
        """Set the wall clock of one process wrong, or all right."""
        for name, clock in self.clocks.items():
            if of in ("", name):
                clock.wrong_s = wrong_s

    async def until(self, what: Callable[[], Awaitable[bool]], *, within_s: float) -> None:
        """Ask again until it is so, ever more seldom. Raises NotReached."""
        end, pause_s = self.clock.monotonic() + within_s, _LOOK_EVERY_S
        while not await what():
            if self.clock.monotonic() > end:
                raise NotReached(f"not so within {within_s:g} s: {getattr(what, '__name__', what)}")
            await self.clock.sleep(pause_s)
            pause_s = min(1.2 * pause_s, _LOOK_SELDOM_S)

    def failures(self) -> list[BaseException]:
        """Why processes ended that nobody had killed."""
        return [failure for process in self.processes.values() for failure in process.failures]


@asynccontextmanager
async def cluster(
    clock: Clock,
    *,
    seed: int = 0,
    faults: Faults = NONE,
    pace: Pace | None = None,
    controllers: Sequence[str] = ("*",),
    programs: Mapping[str, Start] | None = None,
    before: Callable[[Client], Awaitable[None]] | None = None,
) -> AsyncIterator[Cluster]:
    """A cluster without nodes, while the block runs.

    programs are users' own, such as operators, by name; they have an administrator's rights and the faults of all.
    before writes what is there when the control plane starts.
    """

    def rng(part: str) -> Random:
        return Random(f"{seed} {part}")

    clocks = {name: WallClock(clock) for name in (_API_SERVER, MANAGER, _SCHEDULER)}
    async with api_server(clocks[_API_SERVER], rng("api server")) as server:
        client = Client(server.transport(), field_manager="simulation")
        if before is not None:
            await before(client)
        nodes = HollowNodes(client, clock, rng("nodes"), pace or Pace())
        volumes = HollowVolumes(client, clock, rng("volumes"))
        made = Cluster(server, client, nodes, clock, faults, clocks=clocks)
        reader = FaultyReader(made.metrics, lambda: made.faults, rng("measures"))
        async with asyncio.TaskGroup() as group:
            loops = [
                start_loop(group, nodes.run(), "hollow nodes"),
                start_loop(group, volumes.run(), "hollow volumes"),
                start_loop(group, made.find_nodes(), "nodes that come back"),
            ]
            for name, start in (
                (MANAGER, _manager(clocks[MANAGER], rng(MANAGER), reader, tuple(controllers))),
                (_SCHEDULER, _scheduler(clocks[_SCHEDULER], rng(_SCHEDULER))),
            ):
                process = made.processes[name] = Incarnations(name, clock, rng(f"restarts of {name}"))
                roads = _roads(made, name, f"system:{name}", rng(f"faults of {name}"))
                loops.append(start_loop(group, process.run(roads, start), name))
            for name, start in (programs or {}).items():
                process = made.processes[name] = Incarnations(name, clock, rng(f"restarts of {name}"))
                roads = _roads(made, name, ADMIN, rng(f"faults of {name}"))
                loops.append(start_loop(group, process.run(roads, start), name))
            yield made
            for loop in loops:
                loop.cancel()


def _roads(made: Cluster, whose: str, user: str, chance: Random) -> Callable[[Callable[[], None]], FaultyTransport]:
    inner = made.server.transport(user)

    def open_road(kill: Callable[[], None]) -> FaultyTransport:
        return FaultyTransport(
            inner, lambda: made.faults, rng=chance, clock=made.clock, around=made, whose=whose, on_killed=kill
        )

    return open_road


def _manager(clock: Clock, rng: Random, measures: PathReader, controllers: tuple[str, ...]) -> Start:
    async def run(road: FaultyTransport, number: int) -> None:
        options = ManagerOptions(
            kubeconfig=_NO_FILE,
            grpc_port=-1,
            controllers=controllers,
            cluster_cidr=("10.64.0.0/10",),
            leader_elect_identity=f"{MANAGER}-{number}",
        )
        config = ClientConfig(server_url="", grpc_address="", ca_pem=b"simulated")
        await ControllerManager(options, config=config, clock=clock, transport=road, rest=measures, rng=rng).run()

    return run


def _scheduler(clock: Clock, rng: Random) -> Start:
    async def run(road: FaultyTransport, number: int) -> None:
        options = SchedulerOptions(kubeconfig=_NO_FILE, grpc_port=-1, leader_elect_identity=f"{_SCHEDULER}-{number}")
        await SchedulerService(options, transport=road, clock=clock, rng=rng).run()

    return run
