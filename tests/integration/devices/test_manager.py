"""Kubelet's device manager and plugins served by the SDK, over real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.devices import RESOURCE, ToyPlugin, device_side, gpu_pod, serving, short_folder
from tests.support.kubelet import wait_until
from tiphys_kubelet.resources.allocation import NotYet, Refused, Slot
from tiphys_sdk.device.plugin import Device
from tiphys_sdk.device.serve import identity


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


async def test_I18_devices_are_counted_and_drop_when_they_turn_unhealthy(folder: Path) -> None:
    plugin = ToyPlugin()
    async with device_side(folder) as side, serving(plugin, folder):
        await side.until_counts(4, 4)
        plugin.set(Device("0"), Device("1", healthy=False))
        await side.until_counts(2, 1)


async def test_a_pod_gets_its_devices_once_and_nobody_else_gets_them(folder: Path) -> None:
    plugin = ToyPlugin()
    async with device_side(folder) as side, serving(plugin, folder):
        await side.until_counts(4, 4)
        one, two = gpu_pod("one", 2), gpu_pod("two", 2)
        await side.manager.allocate(one)
        await side.manager.allocate(one)
        await side.manager.allocate(two)
        assert plugin.allocated == [("0", "1"), ("2", "3")]
        with pytest.raises(Refused, match="Requested: 1, Available: 0"):
            await side.manager.allocate(gpu_pod("three"))
        side.manager.release("one")
        await side.manager.allocate(gpu_pod("three"))
        grant = await side.manager.prepare(two, two.spec.containers[0])
        assert grant.env == {"GPUS": "2,3"}
        assert [d.container_path for d in grant.devices] == ["/dev/gpu2", "/dev/gpu3"]


async def test_a_plugin_that_is_gone_leaves_its_capacity_and_nothing_to_give(folder: Path) -> None:
    async with device_side(folder) as side:
        async with serving(ToyPlugin(), folder):
            await side.until_counts(4, 4)
        await side.until_counts(4, 0)
        with pytest.raises(NotYet):
            await side.manager.allocate(gpu_pod("one"))
        async with serving(ToyPlugin(), folder):
            await side.until_counts(4, 4)


async def test_after_a_restart_of_the_kubelet_who_holds_what_is_known_before_the_plugin_is_back(folder: Path) -> None:
    plugin = ToyPlugin(["0", "1"])
    pod = gpu_pod("one")
    async with device_side(folder) as side, serving(plugin, folder):
        await side.until_counts(2, 2)
        await side.manager.allocate(pod)
    async with device_side(folder) as side:
        await side.manager.wait_loaded()
        assert side.manager.counts() == {RESOURCE: (2, 0)}
        assert side.manager.holdings()[Slot("one", "app", RESOURCE)].devices == ("0",)
        await side.manager.allocate(pod)
        with pytest.raises(NotYet):
            await side.manager.allocate(gpu_pod("two"))
        async with serving(plugin, folder):
            await side.until_counts(2, 2)
            await side.manager.allocate(gpu_pod("two"))
            assert side.manager.holdings()[Slot("two", "app", RESOURCE)].devices == ("1",)


async def test_a_plugin_registers_again_when_the_kubelet_restarts(folder: Path) -> None:
    async with serving(ToyPlugin(), folder):
        for _ in range(3):
            async with device_side(folder) as side:
                await side.until_counts(4, 4)


async def test_a_socket_that_a_dead_plugin_left_is_removed(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "dead.sock"))
    async with device_side(folder) as side, serving(ToyPlugin(), folder):
        await side.until_counts(4, 4)
    assert not (folder / "dead.sock").exists()


async def test_a_plugin_whose_socket_is_removed_serves_anew(folder: Path) -> None:
    async with device_side(folder) as side, serving(ToyPlugin(), folder) as server:
        await side.until_counts(4, 4)
        first = identity(server.socket)
        server.socket.unlink()
        await wait_until(lambda: identity(server.socket) not in (None, first) and server.is_registered)
        await side.until_counts(4, 4)
