"""The way of events to the log: nothing is lost, memory is bounded, a broken disk stops no request."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime

import orjson

from tiphys_apimachinery.scheme import load_default
from tiphys_apiserver.audit import trail as trail_module
from tiphys_apiserver.audit.bodies import Bodies, Sent
from tiphys_apiserver.audit.events import Draft
from tiphys_apiserver.audit.policy import Level, Stage
from tiphys_apiserver.audit.trail import Counts, Trail
from tiphys_component.metrics import Registry


class _Sink:
    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.may_write = threading.Event()
        self.may_write.set()
        self.fails = False
        self.closed = False

    def write(self, lines: list[bytes]) -> None:
        assert self.may_write.wait(5)
        if self.fails:
            raise OSError(28, "No space left on device")
        self.lines += lines

    def close(self) -> None:
        self.closed = True


def _draft(number: int) -> Draft:
    fields = {"auditID": str(number), "objectRef": {"resource": "pods"}}
    body = Sent("application/json", b'{"metadata":{"name":"a"}}')
    return Draft(fields, Level.METADATA, Stage.RESPONSE_COMPLETE, datetime(2026, 1, 1, tzinfo=UTC), request=body)


def _trail(sink: _Sink) -> Trail:
    return Trail(sink, Bodies(load_default()), Counts(Registry()))


async def test_events_left_at_the_end_are_written_and_the_log_is_closed() -> None:
    sink = _Sink()
    trail = _trail(sink)
    task = asyncio.create_task(trail.run())
    for number in range(1000):
        trail.add(_draft(number))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    assert [orjson.loads(line)["auditID"] for line in sink.lines] == [str(number) for number in range(1000)]
    assert sink.closed


async def test_name_of_what_is_created_comes_from_the_body_that_is_not_shown() -> None:
    sink = _Sink()
    trail = _trail(sink)
    task = asyncio.create_task(trail.run())
    trail.add(_draft(1))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    event = orjson.loads(sink.lines[0])
    assert event["objectRef"] == {"resource": "pods", "name": "a"}
    assert "requestObject" not in event
    assert event["stageTimestamp"] == "2026-01-01T00:00:00.000000Z"


async def test_request_waits_while_the_queue_is_full() -> None:
    sink = _Sink()
    sink.may_write.clear()
    trail = _trail(sink)
    task = asyncio.create_task(trail.run())
    for number in range(trail_module.QUEUE_LENGTH):
        trail.add(_draft(number))
    waiting = asyncio.create_task(trail.wait_room())
    done, _ = await asyncio.wait([waiting], timeout=0)
    assert not done

    sink.may_write.set()
    async with asyncio.timeout(5):
        await waiting
    task.cancel()
    await asyncio.wait([task])


async def test_log_that_cannot_be_written_is_counted_and_stops_nothing() -> None:
    sink = _Sink()
    sink.fails = True
    metrics = Registry()
    trail = Trail(sink, Bodies(load_default()), Counts(metrics))
    task = asyncio.create_task(trail.run())
    trail.add(_draft(1))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    assert b"apiserver_audit_error_total 1.0" in metrics.render()
    assert sink.closed


async def test_trail_that_drops_has_nobody_wait() -> None:
    sink, metrics = _Sink(), Registry()
    trail = Trail(sink, Bodies(load_default()), Counts(metrics), drops=True)
    for number in range(trail_module.QUEUE_LENGTH + 7):
        trail.add(_draft(number))

    async with asyncio.timeout(1):
        await trail.wait_room()
    assert metrics.value("apiserver_audit_error_total") == 7
