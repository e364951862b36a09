"""Probes of all kinds against real containers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.kubelet import RunningKubelet, is_ready, is_running, make_pod, wait_until

pytestmark = pytest.mark.containerd


def add_probe(container: Any, kind: str, handler: str, **settings: int) -> Any:
    """Adds a probe that asks every second; returns its handler."""
    probe = getattr(container, kind)
    probe.periodSeconds, probe.timeoutSeconds = 1, 1
    for name, value in settings.items():
        setattr(probe, name, value)
    found = getattr(probe.handler, handler)
    found.SetInParent()
    return found


@pytest.mark.parametrize("handler", ["httpGet", "tcpSocket", "exec"], ids=["http", "tcp", "exec"])
async def test_readiness_follows_the_probe(kubelet: RunningKubelet, handler: str) -> None:
    script = "mkdir /tmp/w; echo ok > /tmp/w/ready; httpd -p 8080 -h /tmp/w; touch /tmp/up; sleep 1000"
    pod = make_pod(f"ready-{handler.lower()}", "sh", "-c", script, grace=1)
    container = pod.spec.containers[0]
    container.ports.add(name="web", containerPort=8080)
    found = add_probe(container, "readinessProbe", handler)
    if handler == "httpGet":
        found.path = "/ready"
        found.port.type, found.port.strVal = 1, "web"
    elif handler == "tcpSocket":
        found.port.type, found.port.intVal = 0, 8080
    else:
        found.command.extend(["cat", "/tmp/up"])
    await kubelet.create(pod)
    await kubelet.until(pod.metadata.name, is_running)
    await kubelet.until(pod.metadata.name, is_ready, timeout_s=4)


async def test_failing_readiness_makes_unready_without_a_restart(kubelet: RunningKubelet) -> None:
    pod = make_pod("flips", "sh", "-c", "touch /tmp/ok; sleep 1.2; rm /tmp/ok; sleep 1000", grace=1)
    found = add_probe(pod.spec.containers[0], "readinessProbe", "exec", failureThreshold=1)
    found.command.extend(["cat", "/tmp/ok"])
    await kubelet.create(pod)
    await kubelet.until("flips", is_ready, timeout_s=4)
    now = await kubelet.until("flips", lambda p: not is_ready(p), timeout_s=5)
    assert now.status.phase == "Running"
    assert now.status.containerStatuses[0].restartCount == 0
    await wait_until(lambda: any(r.startswith("Unhealthy: Readiness probe failed") for r in kubelet.reasons("flips")))


async def test_failing_liveness_restarts_the_container(kubelet: RunningKubelet) -> None:
    pod = make_pod("dies", "sh", "-c", "sleep 1000", grace=1)
    found = add_probe(pod.spec.containers[0], "livenessProbe", "exec", failureThreshold=1)
    found.command.extend(["cat", "/tmp/none"])
    await kubelet.create(pod)
    await kubelet.until("dies", lambda p: any(status.restartCount >= 1 for status in p.status.containerStatuses))
    expected = "Killing: Container app failed liveness probe, will be restarted"
    await wait_until(lambda: expected in kubelet.reasons("dies"))


async def test_startup_probe_holds_liveness_back(kubelet: RunningKubelet) -> None:
    pod = make_pod("slow", "sh", "-c", "sleep 1.5; touch /tmp/up; sleep 1000", grace=1)
    container = pod.spec.containers[0]
    for kind, threshold in (("startupProbe", 30), ("livenessProbe", 1)):
        add_probe(container, kind, "exec", failureThreshold=threshold).command.extend(["cat", "/tmp/up"])
    await kubelet.create(pod)
    early = await kubelet.until("slow", is_running)
    assert not early.status.containerStatuses[0].started
    late = await kubelet.until("slow", is_ready, timeout_s=6)
    assert late.status.containerStatuses[0].started
    await asyncio.sleep(1.1)
    again = await kubelet.until("slow", is_ready)
    assert again.status.containerStatuses[0].restartCount == 0
