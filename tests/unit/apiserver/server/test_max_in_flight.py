"""Seats are counted, given back, and refused when there is none."""

from __future__ import annotations

import pytest

from tests.unit.apiserver.server.calls import call_of
from tiphys_apimachinery.errors import TooManyRequests
from tiphys_apiserver.authentication.interface import MASTERS
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.server.max_in_flight import MaxInFlight

PODS = "/api/v1/namespaces/a/pods"


async def test_request_over_the_limit_is_told_when_to_come_back() -> None:
    flow = MaxInFlight(1, 1)
    await flow.enter(call_of())
    with pytest.raises(TooManyRequests) as refused:
        await flow.enter(call_of(path=PODS))
    assert (refused.value.retry_after_s, flow.refused) == (1, 1)


async def test_readers_and_writers_are_counted_apart() -> None:
    flow = MaxInFlight(1, 1)
    calls = [call_of(), call_of(path=PODS, method="POST")]
    for call in calls:
        await flow.enter(call)
    assert (flow.reading.taken, flow.mutating.taken) == (1, 1)
    for call in calls:
        call.free_seat()
        call.free_seat()
    assert (flow.reading.taken, flow.mutating.taken) == (0, 0)


@pytest.mark.parametrize(
    ("call", "taken"),
    [
        pytest.param(call_of(path=PODS, watch=True), 1, id="watch"),
        pytest.param(call_of(path=f"{PODS}/p/log"), 1, id="log"),
        pytest.param(call_of("admin", PODS, MASTERS), 2, id="master"),
    ],
)
async def test_watches_hold_no_seat_and_masters_always_get_one(call: Call, taken: int) -> None:
    flow = MaxInFlight(1, 1)
    await flow.enter(call_of())
    await flow.enter(call)
    assert flow.reading.taken == taken


async def test_zero_is_no_limit() -> None:
    flow = MaxInFlight(0, 0)
    await flow.enter(call_of())
    await flow.enter(call_of())
    assert flow.reading.taken == 2
