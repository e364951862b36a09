"""VolumeBinding heeds what drivers tell of the room for their volumes."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.support.scheduler_reference.cluster import matches_selector
from tests.unit.scheduler.objects import node
from tests.unit.scheduler.plugins.test_volume_binding import Room, claim, storage_class, user
from tests.unit.scheduler.world import world
from tiphys.api.storage.v1.storage_pb2 import CSIDriver, CSIStorageCapacity
from tiphys_apimachinery.quantity import Quantity
from tiphys_scheduler.framework.status import FitError
from tiphys_scheduler.pod_info import pod_info
from tiphys_scheduler.volumes import capacity_view, tells_room

ZONE = "topology.kubernetes.io/zone"
NO_SPACE = "node(s) did not have enough free storage"


def driver(*, tells: bool = True, name: str = "csi.example.com") -> CSIDriver:
    made = CSIDriver()
    made.metadata.name = name
    made.spec.storageCapacity = tells
    return made


def capacity(name: str, size: str = "", *, zone: str | None = None, largest: str = "", of: str = "fast") -> Any:
    """Room in a zone; everywhere where zone is empty, nowhere where it is None."""
    made = CSIStorageCapacity(storageClassName=of)
    made.metadata.name, made.metadata.namespace = name, "default"
    if size:
        made.capacity.string = size
    if largest:
        made.maximumVolumeSize.string = largest
    if zone is not None:
        made.nodeTopology.SetInParent()
        if zone:
            made.nodeTopology.matchLabels[ZONE] = zone
    return made


def tell(room: Room, *objs: Any) -> Room:
    for obj in objs:
        if isinstance(obj, CSIDriver):
            room.volumes.set_driver(obj.metadata.name, tells_room=tells_room(obj))
        else:
            room.volumes.set_capacity(obj.metadata.name, capacity_view(obj))
    return room


@pytest.mark.parametrize(
    ("told", "feasible"),
    [
        pytest.param([], "ab", id="no driver is known"),
        pytest.param([driver(tells=False)], "ab", id="the driver does not tell"),
        pytest.param([driver(name="other.example.com")], "ab", id="another driver tells"),
        pytest.param([driver()], "", id="no room is told"),
        pytest.param([driver(), capacity("a", "500Mi", zone="a"), capacity("b", "5Gi", zone="b")], "b", id="a is full"),
        pytest.param([driver(), capacity("a", "1Gi", zone="a")], "a", id="just enough"),
        pytest.param([driver(), capacity("all", "9Gi", zone="")], "ab", id="an empty selector means all nodes"),
        pytest.param([driver(), capacity("none", "9Gi")], "", id="no selector means no node"),
        pytest.param([driver(), capacity("a", "9Gi", zone="a", largest="512Mi")], "", id="no volume so large"),
        pytest.param([driver(), capacity("a", "1Mi", zone="a", largest="2Gi")], "a", id="the largest volume decides"),
        pytest.param([driver(), capacity("a", zone="a")], "", id="unknown room is none"),
        pytest.param([driver(), capacity("a", "9Gi", zone="", of="slow")], "", id="room of another class"),
        pytest.param(
            [driver(), capacity("a", "1Mi", zone="a"), capacity("more", "2Gi", zone="a")], "a", id="two for one node"
        ),
    ],
)
def test_E33_C25_volumes_are_made_where_there_is_room(told: list[Any], feasible: str) -> None:
    room = tell(Room(storage_class(), claim()), *told)
    info = pod_info(user("data"))
    refusals = room.framework.explain(info).refusals
    assert {r.node for r in refusals} == set("ab") - set(feasible)
    assert {r.reasons for r in refusals} <= {(NO_SPACE,)}
    if not feasible:
        found = room.framework.place(info)
        assert isinstance(found, FitError)
        assert found.message == f"0/2 nodes are available: 2 {NO_SPACE}."


def test_E33_a_volume_that_is_being_made_needs_no_further_room() -> None:
    room = tell(Room(storage_class(), claim(selected="b")), driver(), capacity("b", "1Mi", zone="b"))
    assert room.place(pod_info(user("data")))[0] == "b"


def test_E33_every_claim_needs_its_room() -> None:
    room = tell(Room(storage_class(), claim(), claim("large", "8Gi")), driver(), capacity("b", "5Gi", zone="b"))
    assert room.place(pod_info(user("data")))[0] == "b"
    assert room.refusal(pod_info(user("data", "large"))).plugins == {"VolumeBinding"}


@pytest.mark.parametrize("seed", range(20))
def test_C1_C25_room_is_judged_as_node_by_node(seed: int) -> None:
    """Against a reference that looks at one node, one claim and one object at a time."""
    choose = Random(seed)
    room = Room(storage_class(), claim("one", choose.choice(("1Gi", "3Gi"))), claim("two", choose.choice(("1", "2Gi"))))
    nodes = [node(f"n{i}", labels={ZONE: choose.choice("xyz"), "disk": choose.choice("pq")}) for i in range(8)]
    for item in nodes:
        room.cache.set_node(item)
    told = []
    for number in range(choose.randint(0, 5)):
        zone = choose.choice(("x", "y", "", None))
        item = capacity(
            f"c{number}",
            choose.choice(("", "1Gi", "4Gi")),
            zone=zone,
            largest=choose.choice(("", "", "2Gi")),
            of=choose.choice(("fast", "fast", "slow")),
        )
        if zone is not None and choose.random() < 0.4:
            item.nodeTopology.matchExpressions.add(key="disk", operator=choose.choice(("In", "NotIn")), values=["p"])
        told.append(item)
    tell(room, driver(), *told)

    def has_room(labels: dict[str, str], size: int) -> bool:
        for item in told:
            limit = item.maximumVolumeSize if item.HasField("maximumVolumeSize") else item.capacity
            of_class = item.storageClassName == "fast" and item.HasField("nodeTopology")
            enough = bool(limit.string) and Quantity.parse(limit.string).value() >= size
            if of_class and enough and matches_selector(item.nodeTopology, labels):
                return True
        return False

    sizes = [room.volumes.claims[f"default/{name}"].requested for name in ("one", "two")]
    # Nodes a and b of the room have no label disk.
    every = {item.metadata.name: dict(item.metadata.labels) for item in nodes} | {n: {ZONE: n} for n in "ab"}
    wanted = {name for name, labels in every.items() if not all(has_room(labels, size) for size in sizes)}
    assert {r.node for r in room.framework.explain(pod_info(user("one", "two"))).refusals} == wanted


async def test_E33_C23_a_pod_without_room_is_tried_again_when_there_is_more() -> None:
    seed = (storage_class(), claim(), driver(), node("a", labels={ZONE: "a"}), capacity("told", "1Mi", zone="a"))
    async with world(*seed) as found:
        await found.client.create(user("data"))
        await found.until(lambda: found.place_of("p") == "unschedulable")
        waiting = next(found.scheduler.queue.snapshot())

        async def say(name: str, size: str) -> None:
            item = found.client.stored(CSIStorageCapacity, name, "default")
            item.capacity.string = size
            await found.client.update(item)
            want = Quantity.parse(size).value()
            volumes = found.scheduler._volume_binding._volumes
            await found.until(lambda: any(view.largest_bytes == want for view in volumes.room(item.storageClassName)))

        await found.client.create(capacity("elsewhere", "9Gi", zone="a", of="slow"))
        await say("told", "1Ki")
        # Neither room of another class nor less room helps it.
        assert (waiting.place, waiting.attempts) == ("unschedulable", 1)
        await say("told", "2Gi")
        await found.until(lambda: waiting.place != "unschedulable")


async def test_E33_a_driver_that_stops_telling_holds_nobody_back() -> None:
    async with world(storage_class(), claim(), driver(), node("a", labels={ZONE: "a"})) as found:
        await found.client.create(user("data"))
        await found.until(lambda: found.place_of("p") == "unschedulable")
        item = found.client.stored(CSIDriver, "csi.example.com")
        item.spec.storageCapacity = False
        await found.client.update(item)
        await found.until(lambda: found.place_of("p") != "unschedulable")
