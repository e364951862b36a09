"""Revisions over etcd: larger with each change, shared by none, and values that come back as they were written."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tiphys_apiserver.storage.etcd import revisions

TRANSACTIONS = st.integers(1, 1 << 40)
PLACES = st.integers(0, 1023)


@given(one=st.tuples(TRANSACTIONS, PLACES), other=st.tuples(TRANSACTIONS, PLACES))
def test_A56_revisions_are_ordered_as_the_changes_are(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert (revisions.of_change(*one) < revisions.of_change(*other)) == (one < other)
    assert revisions.in_etcd(revisions.of_change(*one)) == one[0]


@given(transaction=TRANSACTIONS, place=PLACES)
def test_A56_a_state_stands_after_every_change_of_its_transaction(transaction: int, place: int) -> None:
    state = revisions.of_state(transaction)
    assert revisions.of_change(transaction, place) <= state < revisions.of_change(transaction + 1)
    assert revisions.is_whole(state)


@pytest.mark.parametrize(
    ("after", "first"),
    [
        pytest.param(0, 1, id="from the beginning"),
        pytest.param(1, 1, id="before anything"),
        pytest.param(revisions.of_state(1), 2, id="after the empty state"),
        pytest.param(revisions.of_change(7), 7, id="the rest of a transaction"),
        pytest.param(revisions.of_change(7, 3), 7, id="amid a pack"),
        pytest.param(revisions.of_state(7), 8, id="after a list"),
    ],
)
def test_A56_watch_begins_with_the_first_transaction_that_may_hold_more(after: int, first: int) -> None:
    assert revisions.first_after(after) == first


@pytest.mark.parametrize(("revision", "asked"), [(0, 0), (1, 1), (1023, 1), (revisions.of_change(2), 2)])
def test_A56_etcd_is_never_asked_for_now_where_a_revision_is_meant(revision: int, asked: int) -> None:
    assert revisions.in_etcd(revision) == asked


def test_A56_more_changes_than_places_share_the_last() -> None:
    assert revisions.of_change(5, 4000) == revisions.of_state(5)


@given(value=st.binary(), place=PLACES)
@example(value=b"\xf4TPl", place=0)
@example(value=revisions.sealed(b"k8s\0", 5), place=0)
@example(value=revisions.sealed(b"k8s\0", 5), place=5)
def test_A56_a_value_comes_back_with_its_place(value: bytes, place: int) -> None:
    assert revisions.opened(revisions.sealed(value, place)) == (value, place)


@given(value=st.binary())
def test_A56_what_others_wrote_is_read_as_it_is(value: bytes) -> None:
    assert revisions.opened(value + b"!") == (value + b"!", 0)


def test_A56_places_count_within_each_transaction() -> None:
    assert list(revisions.places([4, 5, 5, 5, 6, 8, 8])) == [0, 0, 1, 2, 0, 0, 1]
