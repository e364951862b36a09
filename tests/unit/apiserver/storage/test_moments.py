"""The revision of a moment: the newest that was there then, as far back as the history goes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tiphys_apimachinery.errors import BadRequest, Expired
from tiphys_apiserver.storage.memory.store import MemoryStore
from tiphys_apiserver.storage.moments import Moments
from tiphys_component.clock import FakeClock


async def test_A57_moment_has_the_newest_revision_of_its_second() -> None:
    clock = FakeClock()
    moments = Moments(MemoryStore(clock), clock, history_s=60)
    began = clock.now()
    for revision in (5, 5, 8, 9):
        moments.note(revision)
        clock.advance(1)
    assert [moments.at(began + timedelta(seconds=s)) for s in (0, 1, 1.5, 2, 3)] == [5, 5, 5, 8, 9]


async def test_A57_future_and_what_was_before_the_server_are_refused() -> None:
    clock = FakeClock()
    moments = Moments(MemoryStore(clock), clock, history_s=60)
    with pytest.raises(Expired, match="from a second after its start"):
        moments.at(clock.now())
    moments.note(3)
    with pytest.raises(Expired, match="too long ago: this server knows the cluster since"):
        moments.at(clock.now() - timedelta(seconds=1))
    with pytest.raises(BadRequest, match="yet to come"):
        moments.at(clock.now() + timedelta(seconds=1))


async def test_A57_what_is_older_than_the_history_is_forgotten_but_for_where_it_begins() -> None:
    clock = FakeClock()
    moments = Moments(MemoryStore(clock), clock, history_s=10)
    began = clock.now()
    for revision in range(1, 31):
        moments.note(revision)
        clock.advance(1)
    with pytest.raises(Expired):
        moments.at(began + timedelta(seconds=10))
    assert moments.at(began + timedelta(seconds=21)) == 22
