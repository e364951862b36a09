"""What a node tells of its CSI drivers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.storage.v1.storage_pb2 import CSINode
from tiphys_apimachinery.errors import Conflict, ServiceUnavailable
from tiphys_client.fake import FakeClient
from tiphys_component.clock import FakeClock
from tiphys_kubelet.csi.csi_node import FORGET_AFTER_S, NODE_ID_ANNOTATION, CsiNodeWriter
from tiphys_kubelet.csi.drivers import CsiDrivers, NodeFacts
from tiphys_kubelet.plugin_watcher import PluginError

FACTS = NodeFacts("id-1", {"zone.x": "a"}, 7)


@pytest.fixture
def clock() -> FakeClock:
    """Moved by hand."""
    return FakeClock()


@pytest.fixture
def client(clock: FakeClock) -> FakeClient:
    """An API server that knows the node."""
    client = FakeClient(clock)
    node = Node()
    node.metadata.name, node.metadata.uid = "n", "node-uid"
    client.seed(node)
    return client


@asynccontextmanager
async def writing(client: FakeClient, clock: FakeClock) -> AsyncIterator[CsiNodeWriter]:
    """A writer at work."""
    writer = CsiNodeWriter("n", client, clock)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(writer.run())
        await clock.settle()
        yield writer
        task.cancel()


def drivers_of(client: FakeClient) -> list[str]:
    """The names in the object."""
    stored = client.find_stored(CSINode, "n")
    return [driver.name for driver in stored.spec.drivers] if stored is not None else []


def node_of(client: FakeClient) -> Node:
    """The node as stored."""
    return client.stored(Node, "n")


async def test_object_is_there_and_owned_by_the_node_before_any_driver(client: FakeClient, clock: FakeClock) -> None:
    async with writing(client, clock):
        stored = client.stored(CSINode, "n")
        assert [owner.uid for owner in stored.metadata.ownerReferences] == ["node-uid"]


async def test_driver_is_written_with_id_topology_and_limit(client: FakeClient, clock: FakeClock) -> None:
    async with writing(client, clock) as writer:
        await writer.add("d", FACTS)
    stored = client.stored(CSINode, "n")
    (driver,) = stored.spec.drivers
    assert (driver.name, driver.nodeID, list(driver.topologyKeys)) == ("d", "id-1", ["zone.x"])
    assert driver.allocatable.count == 7
    assert node_of(client).metadata.labels["zone.x"] == "a"
    assert json.loads(node_of(client).metadata.annotations[NODE_ID_ANNOTATION]) == {"d": "id-1"}


async def test_driver_that_goes_is_taken_out_and_its_topology_stays(client: FakeClient, clock: FakeClock) -> None:
    async with writing(client, clock) as writer:
        await writer.add("d", FACTS)
        await clock.run_for(FORGET_AFTER_S)
        writer.remove("d")
        await clock.settle()
    assert drivers_of(client) == []
    assert NODE_ID_ANNOTATION not in node_of(client).metadata.annotations
    # Volumes are bound to the node by it.
    assert node_of(client).metadata.labels["zone.x"] == "a"


async def test_drivers_of_an_earlier_life_stay_until_they_had_time_to_come_back(
    client: FakeClient, clock: FakeClock
) -> None:
    old = CSINode()
    old.metadata.name = "n"
    old.spec.drivers.add(name="back", nodeID="id-0")
    old.spec.drivers.add(name="lost", nodeID="id-0")
    client.seed(old)
    async with writing(client, clock) as writer:
        await writer.add("back", FACTS)
        assert drivers_of(client) == ["back", "lost"]
        await clock.run_for(FORGET_AFTER_S)
        assert drivers_of(client) == ["back"]


async def test_topology_that_contradicts_the_nodes_label_is_refused(client: FakeClient, clock: FakeClock) -> None:
    async with writing(client, clock) as writer:
        await writer.add("d", FACTS)
        with pytest.raises(ValueError, match='"b" but existing label is'):
            await writer.add("e", NodeFacts("id-1", {"zone.x": "b"}))
        assert drivers_of(client) == ["d"]


async def test_write_that_meets_another_is_made_again(client: FakeClient, clock: FakeClock) -> None:
    async with writing(client, clock) as writer:
        client.server.fail("Update", CSINode, Conflict("changed"))
        await writer.add("d", FACTS)
    assert drivers_of(client) == ["d"]


async def test_removal_that_can_not_be_written_is_tried_until_it_is(client: FakeClient, clock: FakeClock) -> None:
    async with writing(client, clock) as writer:
        await writer.add("d", FACTS)
        await clock.run_for(FORGET_AFTER_S)
        client.server.fail("Get", Node, ServiceUnavailable("down"))
        writer.remove("d")
        await clock.settle()
        assert drivers_of(client) == ["d"]
        await clock.run_for(1)
        assert drivers_of(client) == []


@pytest.mark.parametrize(
    ("versions", "fits"),
    [
        pytest.param(["1.0.0"], True, id="one"),
        pytest.param(["0.3.0", "v1.12.0"], True, id="newest of several"),
        pytest.param(["0.3.0"], False, id="too old"),
        pytest.param(["2.0.0"], False, id="too new"),
        pytest.param([], False, id="none"),
        pytest.param(["one"], False, id="no version"),
    ],
)
async def test_driver_must_speak_csi_1(
    client: FakeClient, clock: FakeClock, versions: Sequence[str], fits: bool
) -> None:
    drivers = CsiDrivers(CsiNodeWriter("n", client, clock), lambda: None)
    if fits:
        await drivers.validate("d", "/sock", versions)
    else:
        with pytest.raises(PluginError, match="reported by this driver are supported"):
            await drivers.validate("d", "/sock", versions)


async def test_driver_that_does_not_say_who_the_node_is_is_refused(client: FakeClient, clock: FakeClock) -> None:
    drivers = CsiDrivers(CsiNodeWriter("n", client, clock), lambda: None)
    with pytest.raises(PluginError, match="error during CSI NodeGetInfo"):
        await drivers.register("d", "/nowhere.sock", ("1.0.0",))
    assert list(drivers) == []
