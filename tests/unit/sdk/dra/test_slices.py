"""Slices of a driver: what must be written so that they are what it offers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tiphys.api.resource.v1.resource_pb2 import ResourceSlice
from tiphys_sdk.dra.driver import DevicePool, Version, make_device
from tiphys_sdk.dra.slices import MOST_DEVICES, plan_slices


def pool(name: str = "n1", *, count: int = 2, model: str = "a") -> DevicePool:
    return DevicePool(name, [make_device(f"gpu-{n}", {"model": model}) for n in range(count)])


def plan(pools: Iterable[DevicePool], existing: Iterable[ResourceSlice] = ()) -> Any:
    return plan_slices(pools, existing, driver="gpu.example", node="n1")


def after(pools: Iterable[DevicePool], existing: Iterable[ResourceSlice] = ()) -> list[ResourceSlice]:
    """The slices once the plan is carried out."""
    made = plan(pools, existing)
    changed = {item.metadata.name: item for item in (*made.update, *made.create)}
    kept = [item for item in existing if item.metadata.name not in {*changed, *made.delete}]
    return sorted([*kept, *changed.values()], key=lambda item: item.metadata.name)


def test_C28_devices_are_published_once() -> None:
    (made,) = after([pool()])
    assert (made.spec.driver, made.spec.nodeName, made.spec.pool.name) == ("gpu.example", "n1", "n1")
    assert (made.spec.pool.generation, made.spec.pool.resourceSliceCount) == (1, 1)
    again = plan([pool()], [made])
    assert (again.create, again.update, again.delete) == ([], [], [])


def test_C28_a_change_is_a_new_generation_of_the_same_slice() -> None:
    before = after([pool()])
    made = plan([pool(model="b")], before)
    assert (made.create, made.delete) == ([], [])
    assert [item.spec.pool.generation for item in made.update] == [2]


@pytest.mark.parametrize("count", [MOST_DEVICES, MOST_DEVICES + 1, 3 * MOST_DEVICES])
def test_C28_many_devices_are_spread_over_slices_that_know_how_many_they_are(count: int) -> None:
    made = after([pool(count=count)])
    assert sum(len(item.spec.devices) for item in made) == count
    assert {item.spec.pool.resourceSliceCount for item in made} == {len(made)}
    fewer = plan([pool(count=1)], made)
    assert len(fewer.delete) == len(made) - 1
    assert [item.spec.pool.generation for item in fewer.update] == [2]


def test_C28_a_pool_that_is_no_longer_offered_goes() -> None:
    before = after([pool("a"), pool("b")])
    made = plan([pool("a")], before)
    assert (made.create, made.update, len(made.delete)) == ([], [], 1)


def test_C28_facts_keep_their_kinds() -> None:
    made = make_device("x", {"a": 1, "b": True, "c": "text", "d": Version("1.2.3")}, {"memory": "1Gi"})
    assert (made.attributes["a"].int, made.attributes["b"].bool) == (1, True)
    assert (made.attributes["c"].string, made.attributes["d"].version) == ("text", "1.2.3")
    assert not made.attributes["b"].HasField("int")
    assert made.capacity["memory"].value.string == "1Gi"
