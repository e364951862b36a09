"""Garbage collection: the graph holds together, and nothing with a living owner is ever deleted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.controller_manager.harness import House, house, names
from tiphys.api.core.v1 import config_map_pb2, node_pb2
from tiphys_apimachinery.scheme import load_default
from tiphys_client.client import Propagation
from tiphys_controller_manager.controllers.garbage_collector.controller import collectable
from tiphys_controller_manager.controllers.garbage_collector.graph import (
    FOREGROUND_FINALIZER,
    ORPHAN_FINALIZER,
    Facts,
    Graph,
    Identity,
    OwnerRef,
)
from tiphys_controller_manager.controllers.garbage_collector.plan import (
    Delete,
    DropOwners,
    Keep,
    OwnerState,
    judge,
    owner_state,
)

GC = "garbage-collector-controller"
ConfigMap = config_map_pb2.ConfigMap


def identity(uid: str) -> Identity:
    return Identity("v1", "ConfigMap", "default", f"name-{uid}", uid)


def owner(uid: str, *, blocks: bool = False) -> OwnerRef:
    return OwnerRef("v1", "ConfigMap", f"name-{uid}", uid, blocks)


def facts(uid: str, *owners: OwnerRef, finalizers: tuple[str, ...] = (), deleting: bool = False) -> Facts:
    return Facts(identity(uid), owners, deleting, finalizers)


SOLID, ABSENT, WAITING = OwnerState.SOLID, OwnerState.ABSENT, OwnerState.WAITING


@pytest.mark.parametrize(
    ("states", "dependents", "verdict"),
    [
        pytest.param({}, [], Keep(), id="no owners"),
        pytest.param({"a": SOLID}, [], Keep(), id="a living owner"),
        pytest.param({"a": ABSENT}, [], Delete("Background"), id="no owner left"),
        pytest.param({"a": SOLID, "b": ABSENT}, [], DropOwners(("b",)), id="one of two is gone"),
        pytest.param({"a": SOLID, "b": WAITING}, [], DropOwners(("b",)), id="one of two waits"),
        pytest.param({"a": WAITING}, [], Delete("Background"), id="the owner waits, nothing hangs below"),
        pytest.param({"a": WAITING}, [facts("d")], Delete("Foreground"), id="the chain goes on"),
        pytest.param(
            {"a": WAITING},
            [facts("d", finalizers=(FOREGROUND_FINALIZER,), deleting=True)],
            Delete("Foreground", unblock=True),
            id="a cycle is broken",
        ),
        pytest.param({"a": ABSENT, "b": ABSENT}, [facts("d")], Delete("Background"), id="all gone"),
    ],
)
def test_verdicts(states: dict[str, OwnerState], dependents: list[Facts], verdict: Any) -> None:
    assert judge(facts("x", *(owner(uid) for uid in states)), states, dependents) == verdict


@pytest.mark.parametrize(("finalizer", "wanted"), [(ORPHAN_FINALIZER, "Orphan"), (FOREGROUND_FINALIZER, "Foreground")])
def test_a_wish_expressed_by_finalizer_is_kept(finalizer: str, wanted: Propagation) -> None:
    live = facts("x", owner("a"), finalizers=(finalizer,))
    assert judge(live, {"a": ABSENT}, []) == Delete(wanted)


def test_an_owner_of_the_same_name_but_another_uid_does_not_count() -> None:
    assert owner_state(owner("a"), facts("b")) is ABSENT
    assert owner_state(owner("a"), facts("a")) is SOLID
    assert owner_state(owner("a"), None) is ABSENT


uids = st.sampled_from([f"u{i}" for i in range(6)])
Step = tuple[str, str, list[tuple[str, bool]], bool]
changes: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("put"), uids, st.lists(st.tuples(uids, st.booleans()), max_size=3), st.booleans()),
    st.tuples(st.just("remove"), uids, st.just([]), st.just(False)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(changes, max_size=40))
def test_every_link_of_the_graph_has_both_ends(steps: list[Step]) -> None:
    graph = Graph()
    for verb, uid, owners, foreground in steps:
        if verb == "remove":
            below = [item.identity.uid for item in graph.dependents(uid) if item.identity.uid != uid]
            assert set(below) <= set(graph.remove(uid)), "dependents of what is gone must be looked at"
        else:
            refs = tuple({one: owner(one, blocks=blocks) for one, blocks in owners}.values())
            finalizers = (FOREGROUND_FINALIZER,) if foreground else ()
            graph.put(facts(uid, *refs, finalizers=finalizers, deleting=foreground))
        graph.check()


@given(st.permutations(range(4)))
def test_the_order_of_sight_does_not_matter(order: list[int]) -> None:
    """Whoever was never shown is looked up; whoever was shown late is not."""
    objects = [facts("a"), facts("b", owner("a")), facts("c", owner("b")), facts("d", owner("a"), owner("c"))]
    graph = Graph()
    for index in order:
        graph.put(objects[index])
        graph.check()
    assert {item.identity.uid for item in graph.dependents("a")} == {"b", "d"}
    node = graph.get("a")
    assert node is not None
    assert node.is_observed


def test_an_owner_that_nobody_has_shown_is_looked_up() -> None:
    graph = Graph()
    assert graph.put(facts("child", owner("ghost"))) == ["ghost"]
    assert graph.forget_unobserved("ghost") == ["child"]


def test_unblocking_wakes_the_owner_that_waits() -> None:
    graph = Graph()
    graph.put(facts("a", finalizers=(FOREGROUND_FINALIZER,), deleting=True))
    graph.put(facts("b", owner("a", blocks=True)))
    assert [item.identity.uid for item in graph.blocking("a")] == ["b"]
    assert graph.put(facts("b", owner("a"))) == ["a"]


def test_events_and_second_versions_are_not_watched() -> None:
    found = [info.group_resource for info in collectable(load_default())]
    assert len(found) == len(set(found))
    assert {"pods", "replicasets.apps", "leases.coordination.k8s.io"} <= set(found)
    assert not [name for name in found if name.startswith("events")]


def config_map(name: str, *owners: Any, blocks: bool = False, finalizers: tuple[str, ...] = ()) -> ConfigMap:
    made = ConfigMap()
    made.metadata.name, made.metadata.namespace = name, "default"
    for item in owners:
        made.metadata.ownerReferences.add(
            apiVersion="v1",
            kind="ConfigMap",
            name=item.metadata.name,
            uid=item.metadata.uid,
            blockOwnerDeletion=blocks,
        )
    made.metadata.finalizers.extend(finalizers)
    return made


async def left(h: House) -> list[str]:
    return names(await h.all(ConfigMap, "default"))


async def test_dependents_follow_their_owner() -> None:
    async with house(GC) as h:
        top = await h.client.create(config_map("top"))
        middle = await h.client.create(config_map("middle", top))
        await h.client.create(config_map("bottom", middle))
        await h.client.create(config_map("other"))
        await h.settle()
        await h.client.delete(ConfigMap, "top", "default")
        await h.settle()
        assert await left(h) == ["other"]


async def test_a_dependent_whose_owner_never_existed_goes() -> None:
    async with house(GC) as h:
        ghost = config_map("ghost")
        ghost.metadata.uid = "never-there"
        await h.client.create(config_map("child", ghost))
        await h.settle()
        assert await left(h) == []


async def test_a_dependent_of_two_stays_with_the_one_that_lives() -> None:
    async with house(GC) as h:
        one, two = await h.client.create(config_map("one")), await h.client.create(config_map("two"))
        await h.client.create(config_map("child", one, two))
        await h.settle()
        await h.client.delete(ConfigMap, "one", "default")
        await h.settle()
        child = h.client.stored(ConfigMap, "child", "default")
        assert [item.uid for item in child.metadata.ownerReferences] == [two.metadata.uid]


async def test_foreground_deletion_goes_from_the_leaves_up() -> None:
    async with house(GC) as h:
        top = await h.client.create(config_map("top"))
        middle = await h.client.create(config_map("middle", top, blocks=True))
        await h.client.create(config_map("bottom", middle, blocks=True, finalizers=("example.com/hold",)))
        await h.settle()
        await h.client.delete(ConfigMap, "top", "default", propagation="Foreground")
        await h.settle()
        assert await left(h) == ["bottom", "middle", "top"]
        await h.client.patch(ConfigMap, "bottom", "default", {"metadata": {"finalizers": None}})
        await h.settle()
        assert await left(h) == []


async def test_foreground_deletion_does_not_wait_for_those_that_do_not_block() -> None:
    async with house(GC) as h:
        top = await h.client.create(config_map("top"))
        await h.client.create(config_map("child", top, blocks=False, finalizers=("example.com/hold",)))
        await h.settle()
        await h.client.delete(ConfigMap, "top", "default", propagation="Foreground")
        await h.settle()
        assert await left(h) == ["child"]


async def test_orphans_lose_the_reference_and_stay() -> None:
    async with house(GC) as h:
        top = await h.client.create(config_map("top"))
        await h.client.create(config_map("child", top))
        await h.settle()
        await h.client.delete(ConfigMap, "top", "default", propagation="Orphan")
        await h.settle()
        assert await left(h) == ["child"]
        assert not h.client.stored(ConfigMap, "child", "default").metadata.ownerReferences


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
async def test_a_cycle_does_not_block(propagation: Any) -> None:
    async with house(GC) as h:
        one = await h.client.create(config_map("one"))
        two = await h.client.create(config_map("two", one, blocks=True))
        three = await h.client.create(config_map("three", two, blocks=True))
        one = h.client.stored(ConfigMap, "one", "default")
        one.metadata.ownerReferences.extend(config_map("one", three, blocks=True).metadata.ownerReferences)
        await h.client.update(one)
        await h.settle()
        await h.client.delete(ConfigMap, "one", "default", propagation=propagation)
        await h.settle(40)
        assert await left(h) == []


async def test_an_object_given_a_new_owner_just_now_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The change comes between our look and our delete: the delete must not hold for the new version."""
    async with house(GC) as h:
        keeper = await h.client.create(config_map("keeper"))
        ghost = config_map("ghost")
        ghost.metadata.uid = "never-there"
        fault = h.client.server
        original = fault.unary

        async def unary(service: str, method: str, request: bytes, **more: Any) -> bytes:
            if method == "Delete" and h.client.find_stored(ConfigMap, "child", "default") is not None:
                child = h.client.stored(ConfigMap, "child", "default")
                if len(child.metadata.ownerReferences) == 1:
                    adopted = config_map("child", ghost, keeper)
                    adopted.metadata.resourceVersion = child.metadata.resourceVersion
                    monkeypatch.setattr(fault, "unary", original)
                    await h.client.update(adopted)
            return await original(service, method, request, **more)

        monkeypatch.setattr(fault, "unary", unary)
        await h.client.create(config_map("child", ghost))
        await h.settle()
        await h.run_for(1)
        child = h.client.stored(ConfigMap, "child", "default")
        assert [item.uid for item in child.metadata.ownerReferences] == [keeper.metadata.uid]


async def test_an_owner_of_the_cluster_may_own_across_namespaces() -> None:
    async with house(GC) as h:
        node = node_pb2.Node()
        node.metadata.name = "n1"
        stored = await h.client.create(node)
        child = config_map("child")
        child.metadata.ownerReferences.add(apiVersion="v1", kind="Node", name="n1", uid=stored.metadata.uid)
        await h.client.create(child)
        await h.settle()
        assert await left(h) == ["child"]
        await h.client.delete(node_pb2.Node, "n1")
        await h.settle()
        assert await left(h) == []


async def test_an_owner_of_an_unknown_kind_is_left_standing() -> None:
    async with house(GC) as h:
        child = config_map("child")
        child.metadata.ownerReferences.add(apiVersion="example.com/v1", kind="Widget", name="w", uid="w1")
        await h.client.create(child)
        await h.settle()
        assert await left(h) == ["child"]
