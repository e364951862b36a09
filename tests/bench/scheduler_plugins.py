"""What preemption, explaining, gated pods and plugins elsewhere cost. Run: -m tests.bench.scheduler_plugins"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from tests.bench.figures import Figure, median, print_figures, print_heading
from tests.unit.scheduler.objects import node, pod, pod_message
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_component.clock import FakeClock
from tiphys_component.proc import quiet_collector
from tiphys_component.rpc import unix_address
from tiphys_scheduler.budgets import Budgets
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.configuration.model import RemotePluginConfig
from tiphys_scheduler.explain import explain
from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.framework.profile import Profile
from tiphys_scheduler.framework.registry import DEFAULT_PROFILE, EVENTS
from tiphys_scheduler.framework.remote import RemotePlugin, connect
from tiphys_scheduler.framework.runtime import Framework, Placement
from tiphys_scheduler.framework.status import FitError
from tiphys_scheduler.nominations import Nominations
from tiphys_scheduler.plugins.default_preemption import DefaultPreemption
from tiphys_scheduler.pod_info import PodInfo, pod_info
from tiphys_scheduler.scheduling_queue import Gates, SchedulingQueue
from tiphys_sdk.scheduler.plugin import Amounts, Nodes, SchedulerPlugin
from tiphys_sdk.scheduler.serve import serve

NODES = 5000
_PODS = 5000
_PREEMPTORS = 1000
_ROUNDS = 9
# As many as kube-scheduler's benchmark has on each node.
_VICTIMS_A_NODE = 4


def cluster() -> Cache:
    """All nodes, empty."""
    cache = Cache(Columns())
    for number in range(NODES):
        labels = {"disk": "nvme" if number % 3 else "hdd", "kubernetes.io/hostname": f"n{number}"}
        cache.set_node(node(f"n{number}", cpu="32", memory="128Gi", labels=labels))
    return cache


class _Evictions:
    def __init__(self) -> None:
        self.victims: tuple[PodInfo, ...] = ()

    def preempt(self, pod: PodInfo, node: str, victims: Sequence[PodInfo]) -> None:
        """Keeps the last."""
        self.victims = tuple(victims)


def measure_preemption() -> Figure:
    """Find no node, find victims, end them, place the pod: the scheduler's own work, by CPU time."""
    rates = []
    for _ in range(_ROUNDS):
        cache, evictions = cluster(), _Evictions()
        nominations = Nominations(cache.columns)
        framework = Framework(DEFAULT_PROFILE, cache.columns, nominations)
        preemption = DefaultPreemption(
            cache, lambda: DEFAULT_PROFILE.filters, nominations, budgets=Budgets(), evictor=evictions
        )
        for number in range(NODES * _VICTIMS_A_NODE):
            cache.set_pod(pod(f"low{number}", cpu="8", memory="1Gi", priority=1, nodeName=f"n{number % NODES}"))
        began = process_time()
        for number in range(_PREEMPTORS):
            info = pod(f"high{number}", cpu="8", memory="1Gi", priority=10)
            error = framework.place(info)
            if not isinstance(error, FitError) or not preemption.post_filter(info, error).node:
                raise TypeError(f"no preemption for {info.key}")
            for victim in evictions.victims:
                cache.remove_pod(victim.key)
            placed = framework.place(info)
            if not isinstance(placed, Placement):
                raise TypeError(f"no room for {info.key}")
            nominations.remove(info.key)
            cache.assume(info, placed.node)
        rates.append(_PREEMPTORS / (process_time() - began))
    return Figure(f"scheduler alone, {NODES:,} nodes: preemptions", median(rates), "per s", at_least=500)


def measure_explain() -> list[Figure]:
    """Why a pod fits nowhere, and where one goes."""
    cache = cluster()
    for number in range(0, NODES, 2):
        cache.set_node(
            node(f"n{number}", cpu="32", taints=[("team", "red", "NoSchedule")], unschedulable=number % 4 == 0)
        )
    framework = Framework(DEFAULT_PROFILE, cache.columns)
    found = []
    for title, cpu in (("fits nowhere", "64"), ("fits", "1")):
        info = pod("p", cpu=cpu, memory="1Gi")
        times = [_ms(partial(explain, framework, info, cache.columns)) for _ in range(7)]
        found.append(Figure(f"explain at {NODES:,} nodes, a pod that {title}", median(times), "ms", at_most=50))
    return found


def _ms(work: Callable[[], object]) -> float:
    began = process_time()
    work()
    return (process_time() - began) * 1000


def measure_gated() -> Figure:
    """Throughput of queue and placement with 10,000 gated pods beside, in proportion to that without."""
    message = pod_message("g")
    message.spec.schedulingGates.add(name="example.com/wait")
    gated = pod_info(message)
    rates: dict[int, list[float]] = {0: [], 10_000: []}
    for _ in range(_ROUNDS):
        for count, found in rates.items():
            cache = cluster()
            framework = Framework(DEFAULT_PROFILE, cache.columns)
            queue = SchedulingQueue(FakeClock(), EVENTS, gates=Gates(framework.admit, framework.may_help))
            for number in range(count):
                queue.add(replace(gated, key=f"default/g{number}"))
            pods = [pod(f"p{number}", cpu="100m", memory="128Mi") for number in range(_PODS)]
            began = process_time()
            for info in pods:
                queue.add(info)
            while (waiting := queue.pop()) is not None:
                placed = framework.place(waiting.pod)
                if isinstance(placed, Placement):
                    cache.assume(waiting.pod, placed.node)
                    queue.remove(waiting.pod.key)
                    queue.move_on(frozenset({Event.POD_ADDED}), node=placed.node, pod=waiting.pod)
            found.append(_PODS / (process_time() - began))
    loss = 100 * (1 - median(rates[10_000]) / median(rates[0]))
    return Figure("throughput lost to 10,000 gated pods", loss, "%", at_most=5)


class PreferFastDisks(SchedulerPlugin):
    """The example of the guide."""

    name = "PreferFastDisks"
    labels = ("disk",)

    def score(self, pod: Pod, nodes: Nodes) -> Amounts:
        """Nvme first."""
        return np.where(nodes.has("disk", "nvme"), 100, 0)


async def measure_remote() -> Figure:
    """Placements with a plugin in another process, in proportion to those without."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plugin.sock"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.scheduler_plugins", "serve", str(path)
        )
        try:
            remotes = await connect([RemotePluginConfig("PreferFastDisks", unix_address(path), timeout_s=30)])
            rates: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(_ROUNDS):
                for with_plugin, found in rates.items():
                    found.append(await _placed_per_s(remotes if with_plugin else []))
        finally:
            process.terminate()
            await process.wait()
    loss = 100 * (1 - median(rates[True]) / median(rates[False]))
    return Figure(f"throughput lost to a plugin in another process, {NODES:,} nodes", loss, "%", at_most=20)


async def _placed_per_s(remotes: Sequence[RemotePlugin]) -> float:
    cache = cluster()
    scores = (*DEFAULT_PROFILE.scores, *((item, 1) for item in remotes))
    profile = Profile(filters=DEFAULT_PROFILE.filters, scores=scores)
    framework = Framework(profile, cache.columns)
    # Of two shapes each time anew, so that the plugin is really asked.
    pods = [pod_message(f"p{number}", cpu=f"{100 + number % 2}m", memory="128Mi") for number in range(_PODS)]
    infos = [pod_info(message) for message in pods]
    began = perf_counter()
    for message, info in zip(pods, infos, strict=True):
        for remote in remotes:
            if remote.lacks(info, cache.columns, 1):
                await remote.refresh(info, message, cache.columns, 1)
        placed = framework.place(info)
        if isinstance(placed, FitError):
            raise TypeError(placed.message)
        cache.assume(info, placed.node)
    return _PODS / (perf_counter() - began)


def measure_scheduler_plugins() -> list[Figure]:
    """All of it, with the collector as the scheduler's own process has it."""
    quiet_collector()
    return [measure_preemption(), *measure_explain(), measure_gated(), asyncio.run(measure_remote())]


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(serve(PreferFastDisks(), f"unix://{sys.argv[2]}"))
    else:
        print_heading()
        print_figures(measure_scheduler_plugins())
