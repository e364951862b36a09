"""Cells of a pod: the summary that people read first.

The rules follow kubectl's familiar output: the reason of a container that is in trouble stands before
the phase, init containers before the others. Source: kubernetes pkg/printers/internalversion.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from tiphys_apimachinery.codec.cells.text import NONE, human_duration, object_age
from tiphys_apimachinery.meta import find_condition, is_condition_true, to_datetime


@dataclass(slots=True)
class _Summary:
    """What the statuses of containers add up to."""

    reason: str
    ready: int = 0
    restarts: int = 0
    last_restart: datetime.datetime | None = None

    def count(self, status: Any) -> None:
        """Adds a container's restarts and the time of its last end."""
        self.restarts += status.restartCount
        if not status.lastState.HasField("terminated"):
            return
        ended = to_datetime(status.lastState.terminated.finishedAt)
        if ended is not None and (self.last_restart is None or ended > self.last_restart):
            self.last_restart = ended


def pod_cells(pod: Any, now: datetime.datetime) -> list[Any]:
    """Name, ready, status, restarts, age, IP, node, nominated node, readiness gates."""
    sidecars = {c.name for c in pod.spec.initContainers if c.restartPolicy == "Always"}
    summary = _summarize(pod, sidecars)
    restarts = str(summary.restarts)
    if summary.restarts and summary.last_restart is not None:
        restarts = f"{restarts} ({human_duration((now - summary.last_restart).total_seconds())} ago)"
    ips = [entry.ip for entry in pod.status.podIPs] or [pod.status.podIP]
    return [
        pod.metadata.name,
        f"{summary.ready}/{len(pod.spec.containers) + len(sidecars)}",
        _final_status(pod, summary.reason),
        restarts,
        object_age(pod, now),
        ips[0] or NONE,
        pod.spec.nodeName or NONE,
        pod.status.nominatedNodeName or NONE,
        _readiness_gates(pod),
    ]


def pod_conditions(pod: Any) -> list[dict[str, str]]:
    """Row conditions: pods that have ended, which kubectl can hide."""
    if pod.status.phase == "Succeeded":
        message = "The pod has completed successfully."
        return [{"type": "Completed", "status": "True", "reason": "Succeeded", "message": message}]
    if pod.status.phase == "Failed":
        return [{"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."}]
    return []


def _summarize(pod: Any, sidecars: set[str]) -> _Summary:
    summary = _Summary(pod.status.reason or pod.status.phase)
    scheduled = find_condition(pod.status.conditions, "PodScheduled")
    if scheduled is not None and scheduled.reason == "SchedulingGated":
        summary.reason = "SchedulingGated"
    sidecar_summary = _Summary("")
    is_initializing = _look_at_init_containers(pod, sidecars, summary, sidecar_summary)
    if is_initializing and not is_condition_true(pod.status.conditions, "Initialized"):
        return summary
    summary.restarts, summary.last_restart = sidecar_summary.restarts, sidecar_summary.last_restart
    _look_at_containers(pod, summary)
    return summary


def _look_at_init_containers(pod: Any, sidecars: set[str], summary: _Summary, sidecar_summary: _Summary) -> bool:
    """Whether initialization is still going on, or has failed; then the reason says where."""
    for index, status in enumerate(pod.status.initContainerStatuses):
        summary.count(status)
        is_sidecar = status.name in sidecars
        if is_sidecar:
            sidecar_summary.count(status)
        state = status.state
        if state.HasField("terminated") and state.terminated.exitCode == 0:
            continue
        if is_sidecar and status.started:
            summary.ready += status.ready
            continue
        if state.HasField("terminated"):
            summary.reason = f"Init:{state.terminated.reason or _exit_text(state.terminated)}"
        elif state.HasField("waiting") and state.waiting.reason not in ("", "PodInitializing"):
            summary.reason = f"Init:{state.waiting.reason}"
        else:
            summary.reason = f"Init:{index}/{len(pod.spec.initContainers)}"
        return True
    return False


def _look_at_containers(pod: Any, summary: _Summary) -> None:
    has_running = False
    for status in reversed(pod.status.containerStatuses):
        summary.count(status)
        state = status.state
        if state.HasField("waiting") and state.waiting.reason:
            summary.reason = state.waiting.reason
        elif state.HasField("terminated"):
            summary.reason = state.terminated.reason or _exit_text(state.terminated)
        elif status.ready and state.HasField("running"):
            has_running = True
            summary.ready += 1
    if summary.reason == "Completed" and has_running:
        # One container has ended well and another goes on: the pod as a whole runs.
        summary.reason = "Running" if is_condition_true(pod.status.conditions, "Ready") else "NotReady"


def _exit_text(terminated: Any) -> str:
    return f"Signal:{terminated.signal}" if terminated.signal else f"ExitCode:{terminated.exitCode}"


def _final_status(pod: Any, reason: str) -> str:
    if not pod.metadata.HasField("deletionTimestamp"):
        return reason
    if pod.status.reason == "NodeLost":
        return "Unknown"
    return reason if pod.status.phase in ("Succeeded", "Failed") else "Terminating"


def _readiness_gates(pod: Any) -> str:
    if not pod.spec.readinessGates:
        return NONE
    true = sum(is_condition_true(pod.status.conditions, gate.conditionType) for gate in pod.spec.readinessGates)
    return f"{true}/{len(pod.spec.readinessGates)}"
