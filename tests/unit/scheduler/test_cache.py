"""A pod counts once, whatever order its events come in."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.scheduler.objects import node, pod
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.framework.interface import Event


def cpu_of(cache: Cache, name: str) -> int:
    columns = cache.columns
    return int(columns.requested[columns.resources["cpu"], columns.row_of[name]])


def fresh() -> Cache:
    cache = Cache(Columns())
    cache.set_node(node("a"))
    return cache


def test_an_assumed_pod_that_is_bound_counts_once() -> None:
    cache, info = fresh(), pod(cpu="1")
    cache.assume(info, "a")
    cache.set_pod(replace(info, node="a"))
    assert cpu_of(cache, "a") == 1000


def test_forgetting_takes_an_assumption_back() -> None:
    cache, info = fresh(), pod(cpu="1")
    cache.assume(info, "a")
    cache.forget(info)
    cache.forget(info)
    assert cpu_of(cache, "a") == 0


def test_forgetting_leaves_a_pod_that_was_bound_after_all() -> None:
    cache, info = fresh(), pod(cpu="1")
    cache.assume(info, "a")
    cache.set_pod(replace(info, node="a"))
    cache.forget(info)
    assert cpu_of(cache, "a") == 1000


def test_a_pod_known_before_its_node_counts_when_the_node_comes() -> None:
    cache = Cache(Columns())
    cache.set_pod(replace(pod(cpu="1"), node="late"))
    assert Event.NODE_ADDED in cache.set_node(node("late"))
    assert cpu_of(cache, "late") == 1000


def test_a_finished_pod_frees_its_place() -> None:
    cache, info = fresh(), replace(pod(cpu="1"), node="a")
    cache.set_pod(info)
    assert cache.set_pod(replace(info, is_finished=True))
    assert cpu_of(cache, "a") == 0


def test_a_node_that_returns_has_its_pods_again() -> None:
    cache = fresh()
    cache.set_pod(replace(pod(cpu="1"), node="a"))
    cache.remove_node("a")
    cache.set_node(node("a"))
    assert cpu_of(cache, "a") == 1000


def test_a_heartbeat_is_no_event() -> None:
    assert fresh().set_node(node("a")) == frozenset()
