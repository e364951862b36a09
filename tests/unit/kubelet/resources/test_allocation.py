"""Who gets which devices."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.devices import RESOURCE, gpu_pod
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_kubelet.resources import allocation
from tiphys_kubelet.resources.allocation import (
    Choice,
    DeviceState,
    Holding,
    NotYet,
    Refused,
    Slot,
    Stock,
    choose,
    demands,
    is_managed,
    merge_devices,
    pick,
)


def stock(*ids: str, unhealthy: str = "", connected: bool = True, expected: bool = False) -> dict[str, Stock]:
    return {RESOURCE: Stock({i: DeviceState(i, i not in unhealthy) for i in ids}, connected, expected)}


def give(pod: Pod, stocks: dict[str, Stock], holdings: dict[Slot, Holding]) -> dict[Slot, Holding]:
    """All that the pod asks for, as the manager gives it."""
    found = dict(holdings)
    for demand in demands(pod):
        choice = choose(demand, pod, stocks, found)
        if choice is not None:
            found[Slot(pod.metadata.uid, demand.container, demand.resource)] = Holding(pick(choice))
    return found


@pytest.mark.parametrize(
    ("stocks", "count", "message"),
    [
        pytest.param({}, 1, "cannot allocate unregistered device example.com/gpu", id="unregistered"),
        pytest.param(
            stock("0", connected=False),
            1,
            "no healthy devices present; cannot allocate unhealthy devices example.com/gpu",
            id="plugin gone",
        ),
        pytest.param(
            stock("0", unhealthy="0"),
            1,
            "no healthy devices present; cannot allocate unhealthy devices example.com/gpu",
            id="unhealthy",
        ),
        pytest.param(
            stock("0", "1", unhealthy="1"),
            2,
            "requested number of devices unavailable for example.com/gpu. Requested: 2, Available: 1",
            id="too few",
        ),
    ],
)
def test_devices_that_can_not_be_had_are_refused_in_the_words_of_kubernetes(
    stocks: dict[str, Stock], count: int, message: str
) -> None:
    with pytest.raises(Refused) as err:
        give(gpu_pod("a", count), stocks, {})
    assert str(err.value) == message


def test_while_a_plugin_is_expected_back_nothing_is_refused_or_given() -> None:
    with pytest.raises(NotYet):
        give(gpu_pod("a"), stock("0", connected=False, expected=True), {})


def test_what_is_held_stays_even_without_a_plugin() -> None:
    held = give(gpu_pod("a"), stock("0"), {})
    assert give(gpu_pod("a"), stock("0", connected=False, expected=True), held) == held


def test_a_changed_request_is_refused() -> None:
    held = give(gpu_pod("a"), stock("0", "1"), {})
    with pytest.raises(Refused, match=r'changed request for resource "example.com/gpu" from 1 to 2'):
        give(gpu_pod("a", 2), stock("0", "1"), held)


def test_init_containers_hand_their_devices_on() -> None:
    held = give(gpu_pod("a", 2, init=(1, 3)), stock("0", "1", "2"), {})
    by_container = {slot.container: set(h.devices) for slot, h in held.items()}
    assert by_container["init-0"] < by_container["init-1"]
    assert by_container["app"] < by_container["init-1"]
    assert len(by_container["app"]) == 2


def test_a_sidecar_keeps_its_devices() -> None:
    pod = gpu_pod("a", 1, init=(1,))
    pod.spec.initContainers[0].restartPolicy = "Always"
    held = give(pod, stock("0", "1"), {})
    assert held[Slot("a", "init-0", RESOURCE)].devices != held[Slot("a", "app", RESOURCE)].devices
    with pytest.raises(Refused):
        give(pod, stock("0"), {})


@pytest.mark.parametrize(
    ("choice", "preferred", "wanted"),
    [
        pytest.param(Choice(("a", "b", "c"), (), 2), ("c",), ("c", "a"), id="preferred first"),
        pytest.param(Choice(("a", "b", "c"), ("b",), 2), ("c", "a"), ("b", "c"), id="handed on before preferred"),
        pytest.param(Choice(("a", "b"), (), 1), ("x", "b", "a"), ("b",), id="an unknown preference is passed over"),
        pytest.param(Choice(("a", "b"), (), 2), ("b", "b"), ("b", "a"), id="a preference told twice counts once"),
    ],
)
def test_devices_are_picked(choice: Choice, preferred: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    assert pick(choice, preferred) == wanted


def test_resources_that_no_plugin_ever_offered_are_left_alone() -> None:
    assert not is_managed(RESOURCE, {}, {})
    assert is_managed(RESOURCE, stock("0"), {})
    assert is_managed(RESOURCE, {}, {Slot("a", "app", RESOURCE): Holding(("0",))})


def test_ids_told_twice_are_one_device_that_is_healthy_only_if_always() -> None:
    devices, twice = merge_devices([DeviceState("a", True), DeviceState("b", True), DeviceState("a", False)])
    assert twice == ("a",)
    assert devices == {"a": DeviceState("a", False), "b": DeviceState("b", True)}


class Allocations(RuleBasedStateMachine):
    """Pods come and go while devices change; at no time has a device two owners."""

    @initialize()
    def start(self) -> None:
        self.stocks = stock(*"01234567")
        self.holdings: dict[Slot, Holding] = {}
        self.pods: dict[str, Pod] = {}

    @rule(
        uid=st.sampled_from("abcdef"),
        count=st.integers(1, 4),
        init=st.lists(st.integers(0, 3), max_size=2),
        sidecar=st.booleans(),
    )
    def pod_comes(self, uid: str, count: int, init: list[int], sidecar: bool) -> None:
        if uid in self.pods:
            return
        pod = gpu_pod(uid, count, init=init)
        if sidecar and init:
            pod.spec.initContainers[0].restartPolicy = "Always"
        try:
            self.holdings = give(pod, self.stocks, self.holdings)
        except (Refused, NotYet):
            return
        self.pods[uid] = pod

    @rule(uid=st.sampled_from("abcdef"))
    def pod_goes(self, uid: str) -> None:
        self.pods.pop(uid, None)
        self.holdings = allocation.without_pods(self.holdings, {uid})

    @rule(ids=st.sets(st.sampled_from("0123456789")), sick=st.sets(st.sampled_from("0123456789")))
    def plugin_tells(self, ids: set[str], sick: set[str]) -> None:
        self.stocks = stock(*sorted(ids), unhealthy="".join(sick))

    @rule(expected=st.booleans())
    def plugin_goes(self, expected: bool) -> None:
        self.stocks = stock(*self.stocks[RESOURCE].devices, connected=False, expected=expected)

    @invariant()
    def nobody_shares(self) -> None:
        owners: dict[str, set[str]] = {}
        lasting: dict[str, list[Slot]] = {}
        for slot, held in self.holdings.items():
            passing = slot.container.startswith("init") and not any(
                c.name == slot.container and c.restartPolicy for c in self.pods[slot.pod_uid].spec.initContainers
            )
            for device in held.devices:
                owners.setdefault(device, set()).add(slot.pod_uid)
                if not passing:
                    lasting.setdefault(device, []).append(slot)
        assert all(len(pods) == 1 for pods in owners.values()), owners
        assert all(len(slots) == 1 for slots in lasting.values()), lasting

    @invariant()
    def everybody_has_what_was_asked(self) -> None:
        for uid, pod in self.pods.items():
            for demand in demands(pod):
                held = self.holdings[Slot(uid, demand.container, demand.resource)]
                assert len(set(held.devices)) == demand.count


Allocations.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestAllocations = Allocations.TestCase
