"""One of several processes works, the others wait: a Lease names the leader, who renews it.

Others measure by their own clocks how long the lease has not changed; the times written in it are for people. A leader
that could not renew for renew_deadline_s stops working before anyone else may start, because that is shorter than
lease_duration_s. A process that was stopped meanwhile must not write when it wakes: give its client a FencedTransport
with elector.is_leader.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from tiphys.api.coordination.v1.coordination_pb2 import Lease
from tiphys_apimachinery.errors import AlreadyExists, APIError, Conflict, NotFound
from tiphys_apimachinery.meta import micro_time_now
from tiphys_client.client import Client
from tiphys_component.app import leaves
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.metrics import Registry

# The lease is given back at shutdown if the server answers within this.
_RELEASE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """How long a lease lasts without renewal, when a leader gives up, how often all try.

    Source: kube-controller-manager's defaults for --leader-elect-….
    """

    lease_duration_s: float = 15.0
    renew_deadline_s: float = 10.0
    retry_period_s: float = 2.0

    def __post_init__(self) -> None:
        if not self.lease_duration_s > self.renew_deadline_s > self.retry_period_s > 0:
            raise ValueError(f"a lease needs lease_duration_s > renew_deadline_s > retry_period_s > 0: {self}")


class LeadershipLost(Exception):
    """The lease could not be renewed in time, or another process has it; this one must end."""


def report_leading(registry: Registry, elector: LeaderElector, name: str) -> None:
    """Tell by a metric whether this process leads; name is that of the lease.

    Source: client-go tools/leaderelection/metrics.go.
    """

    def collect() -> Iterable[Metric]:
        text = "Whether this process holds the lease: 1 is its leader, 0 waits to follow."
        found = GaugeMetricFamily("leader_election_master_status", text, labels=("name",))
        found.add_metric((name,), float(elector.is_leader()))
        yield found

    registry.collector(collect)


class LeaderElector:
    """Takes part in one election. identity must be of this process alone, such as host name and a uuid."""

    def __init__(
        self,
        client: Client,
        *,
        name: str,
        namespace: str,
        identity: str,
        clock: Clock,
        times: LeaseTimes | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._name = name
        self._namespace = namespace
        self.identity = identity
        self._clock = clock
        self._times = times or LeaseTimes()
        self._rng = rng or random.Random()
        self._log = get_logger("leader_election", lease=f"{namespace}/{name}", identity=identity)
        # The lease as our last renewal left it: the next is written over it without a look before.
        self._own: Lease | None = None
        # The lease as it was seen last, and when by our clock it was first seen so.
        self._observed: bytes | None = None
        self._observed_at = 0.0
        self._lasts_s = 0.0
        self._holder = ""
        # When our last renewal that succeeded was begun; None while we do not hold the lease.
        self._renewed_at: float | None = None

    @property
    def holder(self) -> str:
        """Who has the lease, as far as is known."""
        return self._holder

    def is_leader(self) -> bool:
        """Whether this process may act now: it holds the lease, and nobody else can have taken it yet."""
        renewed = self._renewed_at
        return renewed is not None and self._clock.monotonic() - renewed < self._times.renew_deadline_s

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait for the lease, run lead while renewing it, and give the lease back when lead ends or is cancelled.

        Raises LeadershipLost, after lead was cancelled, when the lease is lost; the process should then end, as what
        it knows may be stale. Raises what lead raises.
        """
        await self._acquire()
        self._log.info("leading")
        try:
            async with asyncio.TaskGroup() as group:
                renewing = group.create_task(self._renew(), name=f"renew lease {self._name}")
                # Renewed until lead has ended, also while it winds up.
                await lead()
                renewing.cancel()
        except BaseExceptionGroup as failed:
            causes = leaves(failed)
            lost = next((err for err in causes if isinstance(err, LeadershipLost)), None)
            raise lost or (causes[0] if len(causes) == 1 else failed) from None
        finally:
            if self._renewed_at is not None:
                await self._release()

    async def _acquire(self) -> None:
        while not await self._try():
            # Looked at every retry period and when the lease runs out: so a leader that falls silent is followed within
            # lease duration and retry period together.
            pause = self._times.retry_period_s * (1.0 - 0.2 * self._rng.random())
            if self._holder not in ("", self.identity):
                left = self._observed_at + self._lasts_s - self._clock.monotonic()
                pause = max(0.01, min(pause, left))
            await self._clock.sleep(pause)

    async def _renew(self) -> None:
        while True:
            await self._clock.sleep(self._times.retry_period_s)
            if not await self._try() and (not self.is_leader() or self._holder != self.identity):
                self._renewed_at = None
                raise LeadershipLost(
                    f"lease {self._namespace}/{self._name} is lost, held by {self._holder or 'nobody'}"
                )

    async def _try(self) -> bool:
        """Take or renew the lease; whether we hold it now."""
        started = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._times.renew_deadline_s / 2):
                held = await self._try_once()
        except (APIError, TimeoutError) as err:
            self._log.warning("lease not written", err=str(err) or "timeout")
            return False
        if held:
            self._renewed_at = started
        return held

    async def _try_once(self) -> bool:
        own, self._own = self._own, None
        if own is not None:
            self._claim(own)
            # Where somebody wrote it since, or the answer is lost, the next try looks first.
            if await self._write(self._client.update(own)):
                return True
        try:
            lease = await self._client.get(Lease, self._name, self._namespace)
        except NotFound:
            lease = Lease()
            lease.metadata.namespace, lease.metadata.name = self._namespace, self._name
            self._claim(lease)
            return await self._write(self._client.create(lease))
        self._observe(lease)
        if self._holder not in ("", self.identity) and self._clock.monotonic() - self._observed_at < self._lasts_s:
            return False
        self._claim(lease)
        return await self._write(self._client.update(lease))

    async def _write(self, call: Awaitable[Lease]) -> bool:
        try:
            stored = await call
        except (Conflict, AlreadyExists, NotFound):
            return False
        self._observe(stored)
        self._own = stored
        return True

    def _observe(self, lease: Lease) -> None:
        spec = lease.spec.SerializeToString(deterministic=True)
        if spec != self._observed:
            self._observed, self._observed_at = spec, self._clock.monotonic()
            self._lasts_s = float(lease.spec.leaseDurationSeconds or self._times.lease_duration_s)
            if lease.spec.holderIdentity != self._holder:
                self._holder = lease.spec.holderIdentity
                self._log.info("new leader", leader=self._holder)

    def _claim(self, lease: Lease) -> None:
        now = micro_time_now(self._clock)
        spec = lease.spec
        if spec.holderIdentity != self.identity:
            spec.leaseTransitions += 1 if spec.HasField("holderIdentity") else 0
            spec.acquireTime.CopyFrom(now)
        spec.holderIdentity = self.identity
        spec.leaseDurationSeconds = max(1, round(self._times.lease_duration_s))
        spec.renewTime.CopyFrom(now)

    async def _release(self) -> None:
        self._renewed_at = None
        try:
            async with asyncio.timeout(_RELEASE_TIMEOUT_S):
                lease = await self._client.get(Lease, self._name, self._namespace)
                if lease.spec.holderIdentity == self.identity:
                    lease.spec.holderIdentity = ""
                    lease.spec.leaseDurationSeconds = 1
                    lease.spec.renewTime.CopyFrom(micro_time_now(self._clock))
                    await self._client.update(lease)
                    self._log.info("lease given back")
        except (APIError, TimeoutError) as err:
            # The others wait until it runs out, which costs time and nothing else.
            self._log.warning("lease not given back", err=str(err) or "timeout")
