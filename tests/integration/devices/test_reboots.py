"""A node that is switched off again and again in the middle of its work: no device stays with a pod that is gone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.devices import RESOURCE, ToyPlugin, device_side, gpu_pod, serving, short_folder
from tiphys_kubelet.resources import checkpoint

_REBOOTS = 50


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


async def test_fifty_reboots_leave_no_device_with_a_pod_that_is_gone_and_no_file(folder: Path) -> None:
    dice = random.Random(50)
    gone: set[str] = set()
    for reboot in range(_REBOOTS):
        # What a power cut leaves: the sockets of processes that are dead, and half a file.
        for name in ("toy.sock", ".kubelet_internal_checkpoint.new"):
            if not (folder / name).exists():
                (folder / name).touch()
        async with device_side(folder) as side, serving(ToyPlugin(), folder):
            await side.until_counts(4, 4)
            # Pods that ran before the reboot are no more: the kubelet frees each when it has ended.
            for uid in side.manager.owners():
                assert uid in gone
                side.manager.release(uid)
            for number in range(dice.randint(1, 2)):
                pod = gpu_pod(f"{reboot}-{number}", dice.randint(1, 2))
                await side.manager.allocate(pod)
                gone.add(pod.metadata.uid)
            held = [slot for slot in side.manager.holdings() if slot.resource == RESOURCE]
            assert {slot.pod_uid for slot in held} == {uid for uid in gone if uid.startswith(f"{reboot}-")}
    async with device_side(folder) as side, serving(ToyPlugin(), folder):
        await side.until_counts(4, 4)
        for uid in side.manager.owners():
            side.manager.release(uid)
        # All four are there to give.
        await side.manager.allocate(gpu_pod("last", 4))
        assert side.manager.owners() == {"last"}
    known = checkpoint.read(folder / checkpoint.FILE_NAME)
    assert {slot.pod_uid for slot in known.holdings} == {"last"}
