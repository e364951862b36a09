"""Plugins in another process: a real one on a socket, written with the SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.unit.scheduler.objects import node, pod_message
from tests.unit.scheduler.world import World, world
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_client.grpc_status import reply_for
from tiphys_component import rpc
from tiphys_component.app import StartupError
from tiphys_scheduler.configuration.load import parse
from tiphys_scheduler.configuration.model import RemotePluginConfig
from tiphys_scheduler.framework.remote import RemotePlugin, connect
from tiphys_sdk.scheduler.plugin import Amounts, Mask, Nodes, Normalization, SchedulerPlugin
from tiphys_sdk.scheduler.serve import plugin_service


class OnlyFast(SchedulerPlugin):
    """Wants nvme disks, and prefers little memory."""

    name = "OnlyFast"
    labels = ("disk",)
    resources = ("memory",)
    normalization = Normalization.REVERSED
    reason = "node(s) had slow disks"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def filter(self, pod: Pod, nodes: Nodes) -> Mask:
        self.asked.append(len(nodes))
        return nodes.has("disk", "nvme")

    def score(self, pod: Pod, nodes: Nodes) -> Amounts:
        return nodes.capacity["memory"]


class Fullest(SchedulerPlugin):
    """Fills the fullest node first."""

    name = "Fullest"
    resources = ("cpu",)
    looks_at_requests = True

    def score(self, pod: Pod, nodes: Nodes) -> Amounts:
        return 100 * nodes.requested["cpu"] // np.maximum(nodes.capacity["cpu"], 1)


@asynccontextmanager
async def served(plugin: SchedulerPlugin, folder: Path, *, weight: int = 100) -> AsyncIterator[list[RemotePlugin]]:
    address = rpc.unix_address(folder / "plugin.sock")
    async with rpc.Server(address, None, (plugin_service(plugin),), reply_for, grace_s=0.1):
        yield await connect([RemotePluginConfig(plugin.name, address, weight)])


async def test_C33_filter_and_score_decide_and_are_asked_once_for_all_equal_pods(tmp_path: Path) -> None:
    plugin = OnlyFast()
    nodes = [
        node("slow", cpu="64", labels={"disk": "hdd"}),
        node("fast", memory="16Gi", labels={"disk": "nvme"}),
        node("lean", memory="4Gi", labels={"disk": "nvme"}),
        node("bare"),
    ]
    async with served(plugin, tmp_path) as remotes, world(*nodes, remotes=remotes) as found:
        for number in range(8):
            await found.client.create(pod_message(f"p{number}", cpu="100m"))
        await found.until(lambda: all(found.node_of(f"p{i}") == "lean" for i in range(8)))
        assert plugin.asked == [4]
        # Pods of another shape are another class.
        await found.client.create(pod_message("other", cpu="200m"))
        await found.until(lambda: found.node_of("other") == "lean")
        assert plugin.asked == [4, 4]


async def test_C33_only_nodes_that_changed_are_asked_about_again(tmp_path: Path) -> None:
    plugin = OnlyFast()
    nodes = [node(name, labels={"disk": "hdd"}) for name in ("a", "b", "c")]
    async with served(plugin, tmp_path) as remotes, world(*nodes, remotes=remotes) as found:
        await found.client.create(pod_message("p"))
        await found.until(lambda: found.place_of("p") == "unschedulable")
        message = next(m for _, reason, m in found.events.seen if reason == "FailedScheduling")
        assert message.startswith("0/3 nodes are available: 3 node(s) had slow disks.")
        better = node("b", labels={"disk": "nvme"})
        stored = await found.client.get(type(better), "b")
        stored.metadata.labels["disk"] = "nvme"
        await found.client.update(stored)
        await found.until(lambda: found.place_of("p") == "backoff")
        found.clock.advance(2)
        await found.until(lambda: found.node_of("p") == "b")
        assert plugin.asked == [3, 1]


async def placed(found: World, name: str) -> None:
    await found.until(lambda: bool(found.node_of(name)))


async def test_C33_a_plugin_that_looks_at_requests_sees_nodes_fill(tmp_path: Path) -> None:
    nodes = [node("a", cpu="4"), node("b", cpu="4")]
    async with served(Fullest(), tmp_path) as remotes, world(*nodes, remotes=remotes) as found:
        await found.client.create(pod_message("first", cpu="1", nodeName="b"))
        await found.until(lambda: bool(found.scheduler.cache.node_of("default/first")))
        for number in range(3):
            await found.client.create(pod_message(f"p{number}", cpu="1"))
            await placed(found, f"p{number}")
        assert {found.node_of(f"p{i}") for i in range(3)} == {"b"}


@pytest.mark.parametrize("is_ignorable", [True, False], ids=["ignorable", "needed"])
async def test_C33_a_plugin_that_goes_away_holds_pods_up_unless_it_may_be_ignored(
    tmp_path: Path, is_ignorable: bool
) -> None:
    address = rpc.unix_address(tmp_path / "plugin.sock")
    async with rpc.Server(address, None, (plugin_service(OnlyFast()),), reply_for, grace_s=0.1):
        remotes = await connect([RemotePluginConfig("OnlyFast", address, is_ignorable=is_ignorable)])
    async with world(node("a"), remotes=remotes) as found:
        await found.client.create(pod_message("p"))
        if is_ignorable:
            await found.until(lambda: found.node_of("p") == "a")
        else:
            await found.until(lambda: found.place_of("p") == "backoff")
            assert any(message.startswith("plugin OnlyFast at ") for _, _, message in found.events.seen)


async def test_C33_a_plugin_that_never_answered_stops_the_start() -> None:
    with pytest.raises(StartupError, match="plugin Absent at unix:/does/not/exist does not answer"):
        await connect([RemotePluginConfig("Absent", "unix:/does/not/exist", timeout_s=0.2)])
    assert await connect([RemotePluginConfig("Absent", "unix:/no", timeout_s=0.2, is_ignorable=True)]) == []


def test_C33_plugins_are_named_in_the_configuration() -> None:
    text = """{"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
      "remotePlugins": [{"name": "OnlyFast", "target": "unix:/run/x.sock", "weight": 3, "timeout": "200ms"}]}"""
    assert parse(text.encode()).remote_plugins == (RemotePluginConfig("OnlyFast", "unix:/run/x.sock", 3, 0.2),)
