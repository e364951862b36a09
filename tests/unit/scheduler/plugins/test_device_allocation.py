"""Which devices claims get: the search against a reference that tries everything, and rules one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.claimed import DRIVER, claim, device, resource_slice
from tests.support.scheduler_reference.devices import allocate_slowly
from tiphys.api.resource.v1.resource_pb2 import Device, ResourceClaim, ResourceSlice
from tiphys_apimachinery.quantity import Quantity
from tiphys_scheduler.dynamic_resources.allocator import CANNOT_ALLOCATE, Facts, NotAllocated, allocate
from tiphys_scheduler.dynamic_resources.model import DeviceId, PoolId, pools_of, slice_view, wish_of
from tiphys_scheduler.dynamic_resources.results import allocation_result, node_selector

CLASSES = {"gpu": (), "big": (f"device.attributes['{DRIVER}'].size > 1",), "none": ("false",)}


def pools(*slices: ResourceSlice) -> Any:
    return pools_of(slice_view(item) for item in slices)


def given_to(
    claims: list[ResourceClaim], slices: list[ResourceSlice], taken: tuple[str, ...] = (), **more: Any
) -> list[tuple[str, str, str]]:
    """Claim, choice and device of everything that is given."""
    wishes = [wish_of(item, item.metadata.name) for item in claims]
    found_pools = pools(*slices)
    of_pools = {one.id for pool in found_pools for one in pool.devices}
    facts = Facts({one for one in of_pools if one.device in taken}, CLASSES.get, **more)
    found = allocate(wishes, found_pools, facts)
    return [(name, one.choice.name, one.device.id.device) for name, items in found.items() for one in items]


def counted(name: str, amount: str, **attributes: Any) -> Device:
    """A device that takes of the counter memory of the set all."""
    found = device(name, **attributes)
    consumed = found.consumesCounters.add(counterSet="all")
    consumed.counters["memory"].value.string = amount
    return found


def with_counter(item: ResourceSlice, amount: str) -> ResourceSlice:
    item.spec.sharedCounters.add(name="all").counters["memory"].value.string = amount
    return item


ABC = resource_slice("s", device("a", size=1, numa=0), device("b", size=2, numa=1), device("c", size=2, numa=0))


@pytest.mark.parametrize(
    ("requests", "match", "taken", "expected"),
    [
        pytest.param([{}], "", (), ["r0 a"], id="the first"),
        pytest.param([{}], "", ("a",), ["r0 b"], id="the first that is free"),
        pytest.param([{"count": 2}], "", (), ["r0 a", "r0 b"], id="two"),
        pytest.param([{"of": "big"}], "", (), ["r0 b"], id="of a class"),
        pytest.param(
            [{"where": [f"device.attributes['{DRIVER}'].numa == 0 && device.driver == '{DRIVER}'"], "count": 2}],
            "",
            (),
            ["r0 a", "r0 c"],
            id="by a condition",
        ),
        pytest.param([{"of": "big", "all": True}], "", (), ["r0 b", "r0 c"], id="all"),
        pytest.param([{"of": "big", "all": True}], "", ("c",), None, id="all, but one is taken"),
        pytest.param([{"of": "none", "all": True}], "", (), None, id="all of nothing"),
        pytest.param([{"of": "lost"}], "", (), None, id="no such class"),
        pytest.param([{"count": 4}], "", (), None, id="too many"),
        pytest.param([{}, {"of": "big"}], "", (), ["r0 a", "r1 b"], id="two requests"),
        pytest.param([{}, {"of": "big"}], f"{DRIVER}/numa", (), ["r0 a", "r1 c"], id="of equal attribute"),
        pytest.param([{"count": 2}], f"{DRIVER}/none", (), None, id="without the attribute"),
        pytest.param(
            [{"any": [{"count": 9}, {"of": "big"}]}],
            "",
            (),
            ["r0/c1 b"],
            id="the second choice",
        ),
        pytest.param(
            [{"any": [{"of": "big", "count": 2}, {}]}, {"of": "big"}],
            "",
            (),
            ["r0/c1 a", "r1 b"],
            id="the second choice for another's sake",
        ),
        pytest.param([{"admin": True, "count": 3}], "", ("a", "b"), ["r0 a", "r0 b", "r0 c"], id="to watch over all"),
    ],
)
def test_C28_claims_get_the_first_devices_that_meet_every_request(
    requests: list[dict[str, Any]], match: str, taken: tuple[str, ...], expected: list[str] | None
) -> None:
    wanted = [claim("x", *requests, match=match)]
    if expected is None:
        with pytest.raises(NotAllocated, match=CANNOT_ALLOCATE):
            given_to(wanted, [ABC], taken)
    else:
        assert [f"{choice} {name}" for _, choice, name in given_to(wanted, [ABC], taken)] == expected


def test_C28_two_claims_of_a_pod_are_met_together() -> None:
    found = given_to([claim("x"), claim("y", {"of": "big", "count": 2})], [ABC])
    assert found == [("x", "r0", "a"), ("y", "r0", "b"), ("y", "r0", "c")]


def test_C28_a_condition_that_fails_says_so() -> None:
    with pytest.raises(NotAllocated, match=r"request r0: device gpu.example/s/a: CEL runtime error: no such key: lost"):
        given_to([claim("x", {"where": [f"device.attributes['{DRIVER}'].lost == 1"]})], [ABC])
    assert given_to([claim("x", {"where": ["!('other.example' in device.attributes)"]})], [ABC]) == [("x", "r0", "a")]


def test_C28_older_generations_and_pools_that_are_being_changed_give_nothing() -> None:
    old = resource_slice("old", device("a"), pool="p", generation=1)
    new = resource_slice("new", device("b"), pool="p", generation=2)
    assert given_to([claim("x")], [old, new]) == [("x", "r0", "b")]
    half = resource_slice("half", device("c"), pool="p", generation=3, count=2)
    with pytest.raises(NotAllocated, match=CANNOT_ALLOCATE):
        given_to([claim("x")], [old, new, half])
    with pytest.raises(NotAllocated, match="is currently being updated"):
        given_to([claim("x", {"all": True})], [old, new, half])
    twice = resource_slice("twice", device("d"), device("d"), pool="q")
    with pytest.raises(NotAllocated, match="names a device twice"):
        given_to([claim("x", {"all": True})], [twice])


def test_C28_devices_share_counters() -> None:
    parts = with_counter(resource_slice("s", counted("whole", "8"), counted("a", "4"), counted("b", "4")), "8")
    assert [name for *_, name in given_to([claim("x", {"count": 2})], [parts])] == ["a", "b"]
    used = {(PoolId(DRIVER, "s"), ("all", "memory")): Quantity.parse("4")}
    assert [name for *_, name in given_to([claim("x")], [parts], ("b",), used=used)] == ["a"]


def test_C28_taints_and_capacity_keep_devices_away() -> None:
    tainted, small, fine = device("tainted"), device("small"), device("fine")
    tainted.taints.add(key="broken", value="yes", effect="NoSchedule")
    for item, amount in ((tainted, "80Gi"), (small, "40Gi"), (fine, "80Gi")):
        item.capacity["memory"].value.string = amount
    slices = [resource_slice("s", tainted, small, fine)]
    wanted = claim("x")
    wanted.spec.devices.requests[0].exactly.capacity.requests["memory"].string = "64Gi"
    assert given_to([wanted], slices) == [("x", "r0", "fine")]
    wanted.spec.devices.requests[0].exactly.tolerations.add(key="broken", operator="Exists")
    assert given_to([wanted], slices) == [("x", "r0", "tainted")]


def test_C28_a_search_without_end_is_given_up() -> None:
    devices = [device(f"d{number}") for number in range(60)]
    with pytest.raises(NotAllocated, match="too many ways to try"):
        given_to([claim("x", {"count": 20}, {"count": 12}), claim("y", {"count": 29})], [resource_slice("s", *devices)])


def test_C28_a_result_says_where_devices_can_be_used_and_how_they_are_set_up() -> None:
    item = claim("x")
    item.spec.devices.config.add(requests=["r0"]).deviceConfiguration.opaque.driver = DRIVER
    (views,) = pools(resource_slice("s", device("a"), zone="z1"))
    (local,) = pools(resource_slice("t", device("b"), node="n1"))
    facts = Facts((), CLASSES.get)
    found = allocate([wish_of(item, "x")], [views], facts)["x"]
    result = allocation_result(item, found, "n1", {})
    assert [(c.source, list(c.requests)) for c in result.devices.config] == [("FromClaim", ["r0"])]
    (term,) = result.nodeSelector.nodeSelectorTerms
    assert (term.matchExpressions[0].key, list(term.matchExpressions[0].values)) == ("zone", ["z1"])
    both = node_selector([views.devices[0], local.devices[0]], "n1")
    assert both is not None
    assert list(both.nodeSelectorTerms[0].matchFields[0].values) == ["n1"]
    assert node_selector(pools(resource_slice("e", device("c")))[0].devices, "n1") is None


REQUESTS = st.fixed_dictionaries(
    {
        "of": st.sampled_from(["gpu", "gpu", "big"]),
        "count": st.integers(1, 2),
        "all": st.booleans(),
        "admin": st.booleans(),
        "where": st.sampled_from([(), (), (f"device.attributes['{DRIVER}'].numa == 0",)]),
    }
)
CHOICES = st.fixed_dictionaries({"any": st.lists(REQUESTS.map(lambda r: r | {"admin": False}), min_size=1, max_size=2)})
CLAIMS = st.tuples(
    st.lists(st.one_of(REQUESTS, REQUESTS, CHOICES), min_size=1, max_size=2),
    st.sampled_from(["", "", f"{DRIVER}/numa", f"{DRIVER}/size"]),
    st.booleans(),
)
DEVICES = st.lists(st.tuples(st.integers(1, 2), st.integers(0, 1), st.sampled_from(["0", "2", "3"])), max_size=5)


@given(st.lists(CLAIMS, min_size=1, max_size=2), DEVICES, st.sets(st.integers(0, 4)), st.integers(2, 6))
@settings(max_examples=150, deadline=None)
def test_C28_the_search_finds_just_what_trying_everything_finds(
    claims: list[Any], devices: list[tuple[int, int, str]], taken: set[int], counter: int
) -> None:
    items = [counted(f"d{n}", amount, size=size, numa=numa) for n, (size, numa, amount) in enumerate(devices)]
    found_pools = pools(with_counter(resource_slice("s", *items), str(counter)))
    wishes = []
    for number, (requests, match, is_distinct) in enumerate(claims):
        wanted = claim(f"x{number}", *requests)
        if match and is_distinct:
            wanted.spec.devices.constraints.add(distinctAttribute=match)
        elif match:
            wanted.spec.devices.constraints.add(matchAttribute=match)
        wishes.append(wish_of(wanted, f"x{number}"))
    facts = Facts({DeviceId(DRIVER, "s", f"d{number}") for number in taken}, CLASSES.get)
    expected = allocate_slowly(wishes, found_pools, facts)
    try:
        found = allocate(wishes, found_pools, facts)
    except NotAllocated:
        assert expected is None
        return
    told: dict[tuple[str, str], list[str]] = {}
    for name, every in found.items():
        for one in every:
            told.setdefault((name, one.choice.name), []).append(one.device.id.device)
    assert [(name, choice, tuple(names)) for (name, choice), names in told.items()] == expected
