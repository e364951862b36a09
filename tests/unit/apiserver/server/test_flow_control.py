"""Seats are counted, given back, and refused when there is none."""

from __future__ import annotations

import pytest

from tiphys_apimachinery.errors import TooManyRequests
from tiphys_apiserver.authentication.interface import ANONYMOUS_USER, MASTERS, UserInfo
from tiphys_apiserver.server.flow_control import FlowControl


def test_request_over_the_limit_is_told_when_to_come_back() -> None:
    flow = FlowControl(1, 1)
    with (
        flow.seat("get", ANONYMOUS_USER, lasting=False),
        pytest.raises(TooManyRequests) as refused,
        flow.seat("list", ANONYMOUS_USER, lasting=False),
    ):
        pass
    assert (refused.value.retry_after_s, flow.refused) == (1, 1)


def test_readers_and_writers_are_counted_apart() -> None:
    flow = FlowControl(1, 1)
    with flow.seat("get", ANONYMOUS_USER, lasting=False), flow.seat("create", ANONYMOUS_USER, lasting=False):
        assert (flow.reading, flow.mutating) == (1, 1)
    assert (flow.reading, flow.mutating) == (0, 0)


def test_seat_is_given_back_after_an_error() -> None:
    flow = FlowControl(1, 1)
    with pytest.raises(ValueError), flow.seat("get", ANONYMOUS_USER, lasting=False):
        raise ValueError
    assert flow.reading == 0


def test_watches_hold_no_seat_and_masters_always_get_one() -> None:
    flow = FlowControl(1, 1)
    with (
        flow.seat("get", ANONYMOUS_USER, lasting=False),
        flow.seat("watch", ANONYMOUS_USER, lasting=True),
        flow.seat("get", UserInfo("admin", groups=(MASTERS,)), lasting=False),
    ):
        assert flow.reading == 2


def test_zero_is_no_limit() -> None:
    flow = FlowControl(0, 0)
    with flow.seat("get", ANONYMOUS_USER, lasting=False), flow.seat("get", ANONYMOUS_USER, lasting=False):
        assert flow.reading == 2
