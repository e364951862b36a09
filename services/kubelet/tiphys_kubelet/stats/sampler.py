"""Takes samples when somebody asks and not otherwise: a node that nobody asks about does nothing here.

Whoever asks within ten seconds of another gets the same answer. Whoever is the first for a minute waits a second, as a
rate needs two moments; who scrapes regularly never waits, and gets the rate since the scrape before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.proc import to_thread
from tiphys_cri.errors import CRIError
from tiphys_cri.interface import RuntimeService
from tiphys_kubelet.observation import PodObservation
from tiphys_kubelet.runtime import labels
from tiphys_kubelet.stats.cgroup_files import CgroupFiles
from tiphys_kubelet.stats.readings import MIN_WINDOW_S, ContainerReading, Reading, Sample, Usage, usage_between

FRESH_S = 10.0
# A rate over longer than this would hide what happens now.
STALE_S = 60.0


@dataclass(frozen=True, slots=True)
class Groups:
    """Where the kernel counts: the group of the node, / for the machine, and of a pod, empty where it has none."""

    node: str
    of_pod: Callable[[Pod], str]
    files: CgroupFiles = field(default_factory=CgroupFiles)


class UsageSampler:
    """The samples of one node. `pods` gives the node's pods, `observed` what the runtime shows of them."""

    def __init__(
        self,
        runtime: RuntimeService,
        clock: Clock,
        *,
        groups: Groups,
        pods: Callable[[], Sequence[Pod]],
        observed: Callable[[], Iterable[PodObservation]],
    ) -> None:
        self._runtime = runtime
        self._clock = clock
        self._groups = groups
        self._pods = pods
        self._observed = observed
        self._before: Sample | None = None
        self._newest: Sample | None = None
        self._lock = asyncio.Lock()
        self._log = get_logger("kubelet.stats")

    async def sample(self) -> Sample:
        """Counters that are at most ten seconds old."""
        async with self._lock:
            newest = self._newest
            if newest is None or newest.failed or self._age_s(newest) >= FRESH_S:
                newest = await self._next()
            return newest

    async def usage(self) -> Usage:
        """Counters that are at most ten seconds old, and rates; waits a second where there is nothing to compare."""
        async with self._lock:
            before, newest = self._before, self._newest
            if newest is None or newest.failed or self._age_s(newest) >= STALE_S:
                before, newest = None, await self._next()
            if before is None or self._age_s(newest) >= FRESH_S:
                await self._clock.sleep(MIN_WINDOW_S - self._age_s(newest))
                before, newest = newest, await self._next()
            return usage_between(before, newest)

    async def _next(self) -> Sample:
        """A new sample; the newest so far is what it is compared with, unless that is too old."""
        newest = self._newest
        is_usable = newest is not None and self._age_s(newest) < STALE_S and not newest.failed
        # Whoever asks may go away meanwhile: both change together, or neither.
        taken = await self._take()
        self._before, self._newest = (newest if is_usable else None), taken
        return taken

    def _age_s(self, sample: Sample) -> float:
        return self._clock.monotonic() - sample.taken_s

    async def _take(self) -> Sample:
        failed = False
        told: Sequence[cri.ContainerStats] = ()
        try:
            told = await self._runtime.list_container_stats()
        except CRIError as err:
            failed = True
            self._log.warning("the runtime does not tell what containers use", err=err.message)
        groups = [(pod.metadata.uid, name) for pod in self._pods() if (name := self._groups.of_pod(pod))]
        node, pods = await to_thread(self._read_groups, groups)
        # Stamped at its end: two samples that are a second apart have readings that are so too.
        return Sample(self._clock.monotonic(), tuple(self._containers(told)), pods, node, failed)

    def _read_groups(self, groups: Sequence[tuple[str, str]]) -> tuple[Reading | None, dict[str, Reading]]:
        """In a thread: with many pods these are hundreds of small files."""
        files, pods = self._groups.files, dict[str, Reading]()
        for uid, name in groups:
            reading = files.read(name, self._now_ns())
            if reading is not None:
                pods[uid] = reading
        return files.read(self._groups.node, self._now_ns()), pods

    def _now_ns(self) -> int:
        return int(self._clock.now().timestamp() * 1_000_000_000)

    def _containers(self, told: Sequence[cri.ContainerStats]) -> Iterable[ContainerReading]:
        running = {c.id: c for pod in self._observed() for c in pod.containers}
        for one in told:
            names = one.attributes.labels
            if not names.get(labels.POD_UID) or not one.HasField("cpu"):
                continue  # of somebody else, or ended while it was asked
            seen = running.get(one.attributes.id)
            yield ContainerReading(
                id=one.attributes.id,
                pod_uid=names[labels.POD_UID],
                namespace=names[labels.POD_NAMESPACE],
                pod=names[labels.POD_NAME],
                name=one.attributes.metadata.name,
                reading=Reading(
                    one.cpu.timestamp,
                    one.cpu.usage_core_nano_seconds.value,
                    one.memory.working_set_bytes.value,
                    one.memory.usage_bytes.value,
                    one.memory.rss_bytes.value,
                ),
                image=seen.image if seen is not None else "",
                started_ns=seen.started_at_ns if seen is not None else 0,
                disk_bytes=one.writable_layer.used_bytes.value,
                disk_inodes=one.writable_layer.inodes_used.value,
            )
