"""What one operation costs does not grow with how many objects there are: counted in steps of the interpreter.

Steps and no times, as a time says more about the machine. What runs inside C is not counted: there are a look-up in a
dict, a bisection, and the move of a list's tail by which a sorted list of keys takes one more, 8 bytes a key.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from tests.support.pod_cache import PREFIX, key, pod_format, pod_value, selection
from tiphys_apiserver.storage.interface import Event, EventType
from tiphys_apiserver.storage.objects import CachedObject
from tiphys_apiserver.storage.selection import Matcher, Selection
from tiphys_apiserver.storage.watch_cache import WatchCache

FEW, MANY = 500, 5_000
Operation = Callable[[WatchCache], object]


def filled(count: int) -> WatchCache:
    """A cache of so many pods, of which twenty have the label that is asked for."""
    made = pod_format()
    cache = WatchCache(PREFIX, made)
    objects: list[CachedObject] = []
    for number in range(count):
        labels = {"app": "wanted"} if number % (count // 20) == 0 else {"app": "other"}
        name = f"p{number:06}"
        objects.append(made.ingest(key(name), pod_value(name, labels=labels), number + 1))
    cache.replace(objects, count)
    return cache


@pytest.fixture(scope="module")
def few() -> WatchCache:
    return filled(FEW)


@pytest.fixture(scope="module")
def many() -> WatchCache:
    return filled(MANY)


def steps(work: Callable[[], object]) -> int:
    """How many instructions of the interpreter the work takes; none of those by which others' garbage is cleared."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    # What earlier tests left lying is collected whenever memory is asked for, and its finalizers would be counted.
    gc.collect()
    gc.disable()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


def put(name: str) -> Operation:
    def apply(cache: WatchCache) -> object:
        revision = cache.revision + 1
        return cache.apply(Event(EventType.PUT, key(name), pod_value(name), revision))

    return apply


def come_and_go(cache: WatchCache) -> object:
    put("guest")(cache)
    revision = cache.revision + 1
    return cache.apply(Event(EventType.DELETE, key("guest"), b"", revision))


def select(labels: str = "", **options: Any) -> Operation:
    return lambda cache: cache.select(Matcher(selection(labels), cache.format), **options)


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(lambda cache: cache.objects[key("p000001")].raw, id="get"),
        pytest.param(put("p000001"), id="update"),
        pytest.param(come_and_go, id="create and delete"),
        pytest.param(select("app=wanted"), id="list by label"),
        pytest.param(select(limit=100), id="first page"),
        pytest.param(select(limit=100, start_after=key("p000300")), id="a page in the middle"),
        pytest.param(
            lambda cache: cache.select(Matcher(Selection("a"), cache.format), limit=100, start_after=key("p000300")),
            id="a page of a namespace",
        ),
        pytest.param(lambda cache: cache.count("a"), id="count of a namespace"),
    ],
)
def test_A16_cost_of_an_operation_is_flat(few: WatchCache, many: WatchCache, operation: Operation) -> None:
    # Once before on both: the first of its kind compiles and fills memories, and the first update takes labels away.
    operation(few)
    operation(many)
    assert steps(lambda: operation(many)) <= steps(lambda: operation(few)) * 1.1 + 10
