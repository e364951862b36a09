"""Kubelet and plugin restart in any order, while pods come and go."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.devices import RESOURCE, DeviceSide, ToyPlugin, device_side, gpu_pod, serving, short_folder
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_kubelet.resources.allocation import NotYet, Slot

DEVICES = tuple(str(number) for number in range(8))
WHOLE, AWAY = (8, 8), (8, 0)


@dataclass
class Chaos:
    """Both sides, each up or down, and the pods that were given devices: what they hold must never change."""

    folder: Path
    rng: random.Random
    kubelet: AsyncExitStack = field(default_factory=AsyncExitStack)
    plugin: AsyncExitStack = field(default_factory=AsyncExitStack)
    side: DeviceSide | None = None
    plugin_is_up: bool = False
    given: dict[str, tuple[str, ...]] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    made: int = 0
    restarts: int = 0

    async def toggle_kubelet(self) -> None:
        if self.side is not None:
            self.side = None
            await self.kubelet.aclose()
            self.restarts += 1
            return
        self.side = await self.kubelet.enter_async_context(device_side(self.folder))
        await self.side.manager.wait_loaded()

    async def toggle_plugin(self) -> None:
        self.plugin_is_up = not self.plugin_is_up
        if self.plugin_is_up:
            await self.plugin.enter_async_context(serving(ToyPlugin(DEVICES), self.folder))
        else:
            await self.plugin.aclose()
            self.restarts += 1

    async def pod_comes(self) -> None:
        free = len(DEVICES) - sum(map(len, self.given.values()))
        if self.side is None or not free:
            return
        pod = gpu_pod(f"pod-{self.made}", self.rng.randint(1, min(3, free)))
        self.made += 1
        try:
            await self.side.manager.allocate(pod)
        except NotYet:
            # The plugin is away: the pod waits, and holds nothing meanwhile.
            assert Slot(pod.metadata.uid, "app", RESOURCE) not in self.side.manager.holdings()
            return
        self.pods[pod.metadata.uid] = pod
        self.given[pod.metadata.uid] = self.side.manager.holdings()[Slot(pod.metadata.uid, "app", RESOURCE)].devices

    def pod_goes(self) -> None:
        if self.side is not None and self.given:
            uid = self.rng.choice(sorted(self.given))
            self.side.manager.release(uid)
            del self.given[uid], self.pods[uid]

    async def check(self) -> None:
        if self.side is None:
            return
        counts = self.side.manager.counts().get(RESOURCE)
        assert counts in (WHOLE, AWAY), counts
        held = {slot.pod_uid: h.devices for slot, h in self.side.manager.holdings().items()}
        # A pod whose end the kubelet did not live to write is collected again, as at each start; none is missing.
        for orphan in held.keys() - self.given.keys():
            self.side.manager.release(orphan)
            del held[orphan]
        assert held == self.given
        given = [device for devices in held.values() for device in devices]
        assert len(given) == len(set(given)), held
        for pod in self.pods.values():
            await self.side.manager.allocate(pod)


@asynccontextmanager
async def chaos(seed: int) -> AsyncIterator[Chaos]:
    with short_folder() as folder:
        both = Chaos(folder, random.Random(seed))
        await both.toggle_kubelet()
        await both.toggle_plugin()
        assert both.side is not None
        await both.side.until_counts(*WHOLE)
        try:
            yield both
        finally:
            await both.plugin.aclose()
            await both.kubelet.aclose()


async def restart_at_random(seed: int, restarts: int) -> None:
    async with chaos(seed) as both:
        while both.restarts < restarts:
            match both.rng.randrange(6):
                case 0 | 1:
                    await both.toggle_kubelet()
                case 2 | 3:
                    await both.toggle_plugin()
                case 4:
                    await both.pod_comes()
                case 5:
                    both.pod_goes()
            if both.side is not None and both.plugin_is_up and both.rng.random() < 0.5:
                await both.side.until_counts(*WHOLE)
            await both.check()
        assert both.made > restarts / 10, "hardly any pod came"


async def test_I19_restarts_of_either_side_never_give_a_wrong_count_or_a_pod_without_its_device() -> None:
    await restart_at_random(seed=19, restarts=200)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
async def test_I19_a_thousand_restarts(seed: int) -> None:
    await restart_at_random(seed=seed, restarts=250)
