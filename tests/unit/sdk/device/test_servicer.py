"""From a plugin's class to the contract's messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from tiphys_sdk.device.plugin import Device, DeviceNode, DevicePlugin, Grant, Mount
from tiphys_sdk.device.servicer import DeviceList, allocate_response, list_response, plugin_options


class Plain(DevicePlugin):
    resource = "example.com/plain"

    def devices(self) -> AsyncIterator[Sequence[Device]]:
        raise NotImplementedError

    async def allocate(self, ids: Sequence[str]) -> Grant:
        return Grant()


class Choosy(Plain):
    async def prefer(self, available: Sequence[str], must_include: Sequence[str], size: int) -> Sequence[str]:
        return available


class Careful(Plain):
    async def pre_start(self, ids: Sequence[str]) -> None:
        """Something is done."""


@pytest.mark.parametrize(
    ("plugin", "prefers", "pre_starts"),
    [
        pytest.param(Plain(), False, False, id="plain"),
        pytest.param(Choosy(), True, False, id="choosy"),
        pytest.param(Careful(), False, True, id="careful"),
    ],
)
def test_the_kubelet_is_told_of_what_the_class_brings(plugin: DevicePlugin, prefers: bool, pre_starts: bool) -> None:
    options = plugin_options(plugin)
    assert (options.get_preferred_allocation_available, options.pre_start_required) == (prefers, pre_starts)


def test_devices_are_told_with_health_and_nodes() -> None:
    told = list_response([Device("a", numa_nodes=(1,)), Device("b", healthy=False)]).devices
    assert [(d.ID, d.health, [n.ID for n in d.topology.nodes]) for d in told] == [
        ("a", "Healthy", [1]),
        ("b", "Unhealthy", []),
    ]


def test_paths_are_the_same_in_the_container_unless_they_are_said() -> None:
    grant = Grant({"A": "1"}, [DeviceNode("/dev/a"), DeviceNode("/dev/b", "/dev/x", "r")], [Mount("/lib")])
    answer = allocate_response(grant)
    assert [(d.host_path, d.container_path, d.permissions) for d in answer.devices] == [
        ("/dev/a", "/dev/a", "rw"),
        ("/dev/b", "/dev/x", "r"),
    ]
    assert [(m.host_path, m.container_path, m.read_only) for m in answer.mounts] == [("/lib", "/lib", True)]


def test_a_list_with_an_id_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="not: a"):
        DeviceList().set([Device("a"), Device("a", healthy=False)])


async def test_a_list_is_sent_at_each_change_and_only_then() -> None:
    devices, over = DeviceList(), False
    devices.set([Device("a")])
    stream = devices.follow(lambda: over)
    assert await anext(stream) == (Device("a"),)
    waiting = asyncio.ensure_future(anext(stream))
    devices.set([Device("a")])
    await asyncio.sleep(0)
    assert not waiting.done()
    devices.set([Device("b")])
    assert await waiting == (Device("b"),)
    over = True
    devices.wake()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
