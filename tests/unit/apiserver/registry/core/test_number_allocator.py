"""Numbers with one owner each."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys_apiserver.registry.core.number_allocator import (
    Full,
    NumberAllocator,
    Taken,
    address_static_size,
    port_static_size,
)


@pytest.mark.parametrize(("size", "band"), [(14, 0), (254, 16), (65534, 256), (4094, 255)])
def test_static_band_of_addresses(size: int, band: int) -> None:
    assert address_static_size(size) == band


@pytest.mark.parametrize(("size", "band"), [(2768, 86), (16, 0), (100000, 128)])
def test_static_band_of_ports(size: int, band: int) -> None:
    assert port_static_size(size) == band


def test_dynamic_numbers_come_from_above_the_band_until_it_is_full() -> None:
    allocator = NumberAllocator(20, 5, random.Random(1))
    first = {allocator.reserve_next() for _ in range(15)}
    assert first == set(range(5, 20))
    assert {allocator.reserve_next() for _ in range(5)} == set(range(5))
    with pytest.raises(Full):
        allocator.reserve_next()


def test_released_number_is_free_and_may_be_released_again() -> None:
    allocator = NumberAllocator(4, 0, random.Random(1))
    allocator.reserve(2)
    with pytest.raises(Taken):
        allocator.reserve(2)
    allocator.release(2)
    allocator.release(2)
    allocator.reserve(2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 29)), max_size=120), st.integers(0, 30))
def test_no_number_ever_has_two_owners(steps: list[tuple[bool, int]], band: int) -> None:
    allocator = NumberAllocator(30, band, random.Random(3))
    owned: list[int] = []
    for take, which in steps:
        if take and len(owned) < 30:
            number = allocator.reserve_next()
            assert number not in owned
            owned.append(number)
        elif owned:
            allocator.release(owned.pop(which % len(owned)))
    assert len(allocator) == len(owned)
