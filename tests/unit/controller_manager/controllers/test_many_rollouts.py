"""A thousand Deployments that roll at once: not one of them leaves its bounds at any event."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.unit.controller_manager.controllers.test_deployment import deployment
from tests.unit.controller_manager.harness import House, house
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys_controller_manager.pods import PodView, pod_view

pytestmark = pytest.mark.slow
COUNT, REPLICAS, ROUNDS = 1000, 4, 40
# 25 % of four, both ways.
LEAST, MOST = 3, 5


class Bounds:
    """Counts the pods of each Deployment as their events come, and keeps what was out of bounds."""

    def __init__(self, h: House) -> None:
        self.faults: list[str] = []
        self.is_strict = False
        self._pods: dict[str, PodView] = {}
        self._there: Counter[str] = Counter()
        self._well: Counter[str] = Counter()
        informer = h.parts.shared.informer(pod_pb2.Pod)
        informer.add_handler(
            on_add=lambda pod: self._note(pod_view(pod)),
            on_update=lambda _, pod: self._note(pod_view(pod)),
            on_delete=lambda pod: self._drop(pod_view(pod)),
        )

    def _note(self, pod: PodView) -> None:
        self._count(self._pods.get(pod.uid), -1)
        self._pods[pod.uid] = pod
        self._count(pod, 1)
        self._check(pod.labels["app"])

    def _drop(self, pod: PodView) -> None:
        self._count(self._pods.pop(pod.uid, None), -1)
        self._check(pod.labels["app"])

    def _count(self, pod: PodView | None, change: int) -> None:
        if pod is not None and pod.is_active:
            self._there[pod.labels["app"]] += change
            self._well[pod.labels["app"]] += change * pod.is_ready

    def _check(self, app: str) -> None:
        there, well = self._there[app], self._well[app]
        if self.is_strict and not (there <= MOST and well >= LEAST):
            self.faults.append(f"{app}: {there} pods, {well} ready")


async def roll(h: House, wanted: str) -> None:
    """Run pods until all are of this image."""
    for _ in range(ROUNDS):
        await h.run_pods()
        await h.settle()
        images = Counter(pod.spec.containers[0].image for pod in await h.pods())
        if images == {wanted: COUNT * REPLICAS}:
            return
    raise AssertionError(f"not rolled out: {images}")


async def test_B6_a_thousand_rollouts_at_once_keep_all_their_bounds() -> None:
    async with house("deployment-controller", "replicaset-controller") as h:
        bounds = Bounds(h)
        for number in range(COUNT):
            await h.client.create(deployment(f"app-{number}", replicas=REPLICAS))
        await h.settle(100)
        await roll(h, "busybox:1")
        bounds.is_strict = True
        for number in range(COUNT):
            stored = h.client.stored(apps_pb2.Deployment, f"app-{number}", "default")
            stored.spec.template.spec.containers[0].image = "busybox:2"
            await h.client.update(stored)
        await h.settle(100)
        await roll(h, "busybox:2")
        await h.run_pods()
        assert bounds.faults == []
