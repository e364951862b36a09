"""Which containers are probed, and what their probes say.

Every running container with probes has one task: the startup probe until it succeeds, then liveness and readiness side
by side. A verdict changes only after as many equal outcomes in a row as the probe's threshold says. When liveness or
startup has failed for good the task ends: the container is killed, and the next one begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tiphys.api.core.v1.container_pb2 import Container, Probe
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_component.clock import Clock
from tiphys_cri.interface import RuntimeService
from tiphys_kubelet.observation import ContainerObservation, PodObservation
from tiphys_kubelet.pod_spec import ContainerKind, all_containers
from tiphys_kubelet.pod_state import ProbeVerdict, to_datetime
from tiphys_kubelet.probes.handlers import Outcome, Target, run_probe

# Told of every failed probe: pod, container name, kind of probe, what went wrong.
Unhealthy = Callable[[Pod, str, str, str], None]


class Threshold:
    """Turns outcomes into a verdict: it flips after so many equal outcomes in a row."""

    def __init__(self, probe: Probe, *, verdict: bool | None) -> None:
        self.verdict = verdict
        self._needed = {True: probe.successThreshold or 1, False: probe.failureThreshold or 3}
        self._last: bool | None = None
        self._run = 0

    def take(self, ok: bool) -> bool:
        """True if the verdict changed."""
        self._run = self._run + 1 if ok == self._last else 1
        self._last = ok
        if self._run < self._needed[ok] or self.verdict == ok:
            return False
        self.verdict = ok
        return True


@dataclass(slots=True)
class _Probed:
    pod: Pod
    container: Container
    container_id: str
    host: str
    started_at_ns: int
    verdict: ProbeVerdict
    task: asyncio.Task[None] | None = None


class ProbeManager:
    """All probes of the node; `run` must be running. `on_change` is told the pod whose verdicts changed."""

    def __init__(
        self, runtime: RuntimeService, clock: Clock, on_change: Callable[[str], None], on_unhealthy: Unhealthy
    ) -> None:
        self._runtime = runtime
        self._clock = clock
        self._on_change = on_change
        self._on_unhealthy = on_unhealthy
        self._probed: dict[str, dict[str, _Probed]] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Owns the probes' tasks."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await asyncio.Event().wait()

    def verdicts(self, uid: str) -> Mapping[str, ProbeVerdict]:
        """By container id; containers without probes are left out."""
        return {container_id: probed.verdict for container_id, probed in self._probed.get(uid, {}).items()}

    def sync(self, pod: Pod, observed: PodObservation) -> None:
        """Begins and ends probing as containers come and go."""
        host = observed.sandbox.ips[0] if observed.sandbox is not None and observed.sandbox.ips else "127.0.0.1"
        if pod.spec.hostNetwork:
            host = pod.status.hostIP or host
        known = self._probed.setdefault(pod.metadata.uid, {})
        wanted: set[str] = set()
        for ref in all_containers(pod):
            container = ref.container
            current = observed.active(container.name)
            if (
                current is None
                or not current.is_running
                or ref.kind is ContainerKind.INIT
                or not _has_probes(container)
            ):
                continue
            wanted.add(current.id)
            if current.id not in known:
                known[current.id] = self._begin(pod, container, current, host)
            known[current.id].pod = pod
        for container_id in known.keys() - wanted:
            self._end(known.pop(container_id))
        if not known:
            del self._probed[pod.metadata.uid]

    def stop(self, uid: str) -> None:
        """Ends the probes of a pod; its verdicts are forgotten."""
        for probed in self._probed.pop(uid, {}).values():
            self._end(probed)

    def stop_liveness(self, uid: str) -> None:
        """A pod that ends is probed no more, and keeps its last verdicts."""
        for probed in self._probed.get(uid, {}).values():
            self._end(probed)

    def _begin(self, pod: Pod, container: Container, current: ContainerObservation, host: str) -> _Probed:
        verdict = first_verdict(pod, container, current.id)
        probed = _Probed(pod, container, current.id, host, current.started_at_ns, verdict)
        if self._group is not None:
            probed.task = self._group.create_task(self._probe(probed), name=f"probes {container.name}")
        return probed

    def _end(self, probed: _Probed) -> None:
        if probed.task is not None:
            probed.task.cancel()

    async def _probe(self, probed: _Probed) -> None:
        container = probed.container
        if container.HasField("startupProbe") and not probed.verdict.started:
            await self._run(probed, "Startup", container.startupProbe)
            if not probed.verdict.started:
                return
        async with asyncio.TaskGroup() as group:
            if container.HasField("livenessProbe"):
                group.create_task(self._run(probed, "Liveness", container.livenessProbe))
            if container.HasField("readinessProbe"):
                group.create_task(self._run(probed, "Readiness", container.readinessProbe))

    async def _run(self, probed: _Probed, kind: str, probe: Probe) -> None:
        begun = to_datetime(probed.started_at_ns)
        delay_s = probe.initialDelaySeconds - (self._clock.now() - begun).total_seconds()
        if probe.initialDelaySeconds and delay_s > 0:
            await self._clock.sleep(delay_s)
        initial = {"Startup": None, "Liveness": True, "Readiness": probed.verdict.ready}[kind]
        threshold = Threshold(probe, verdict=initial)
        target = Target(probed.container, probed.container_id, probed.host)
        while True:
            outcome = await run_probe(probe, target, self._runtime)
            if not outcome.ok:
                self._on_unhealthy(probed.pod, probed.container.name, kind, outcome.message)
            if threshold.take(outcome.ok):
                self._settle(probed, kind, outcome)
                if kind == "Startup" or not probed.verdict.live:
                    return
            await self._clock.sleep(float(probe.periodSeconds or 10))

    def _settle(self, probed: _Probed, kind: str, outcome: Outcome) -> None:
        name = probed.container.name
        if kind == "Readiness":
            probed.verdict = replace(probed.verdict, ready=outcome.ok)
        elif kind == "Startup" and outcome.ok:
            probed.verdict = replace(probed.verdict, started=True)
        elif not outcome.ok:
            message = f"Container {name} failed {kind.lower()} probe, will be restarted"
            probed.verdict = replace(probed.verdict, live=False, message=message)
        self._on_change(probed.pod.metadata.uid)


def first_verdict(pod: Pod, container: Container, container_id: str) -> ProbeVerdict:
    """What holds before the first probe: what was reported of this same container, else not started and not ready.

    So a restart of the kubelet makes no container unready for a moment.
    """
    statuses = (*pod.status.containerStatuses, *pod.status.initContainerStatuses)
    told = next((s for s in statuses if s.containerID.endswith(f"//{container_id}")), None)
    return ProbeVerdict(
        started=not container.HasField("startupProbe") or (told is not None and told.started),
        ready=not container.HasField("readinessProbe") or (told is not None and told.ready),
    )


def _has_probes(container: Container) -> bool:
    return any(container.HasField(name) for name in ("startupProbe", "livenessProbe", "readinessProbe"))
