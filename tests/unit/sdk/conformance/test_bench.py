from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
from grpc.aio import Metadata
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_component.clock import FakeClock
from tiphys_sdk.conformance.bench import Bench, Failure, Outcome, check_options, expect, expect_code, option_flag


@pytest.fixture
def bench() -> Bench:
    return Bench(FakeClock())


async def test_step_without_fault_passes() -> None:
    clock = FakeClock()
    bench = Bench(clock)

    async with bench.step("hello", "answers"):
        clock.advance(2.0)

    (step,) = bench.report.steps
    assert (step.name, step.demand, step.outcome, step.took_s) == ("hello", "answers", Outcome.PASSED, 2.0)
    assert bench.report.passed
    assert bench.passed("hello")


@pytest.mark.parametrize(
    ("err", "message"),
    [
        (Failure("no address in the result"), "no address in the result"),
        (AssertionError("3 != 4"), "AssertionError: 3 != 4"),
        (TimeoutError(), "no answer in time"),
        (KeyError("ips"), "KeyError: 'ips'"),
        (ExceptionGroup("two", [Failure("a"), Failure("b")]), "a; b"),
        (
            grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, Metadata(), Metadata(), "no volume", None),
            "NOT_FOUND: no volume",
        ),
    ],
    ids=["failure", "assertion", "time", "fault-of-the-kit", "group", "grpc"],
)
async def test_fault_inside_fails_the_step_alone(bench: Bench, err: Exception, message: str) -> None:
    async with bench.step("bad", "…"):
        raise err
    async with bench.step("good", "…"):
        pass

    assert [(step.name, step.message) for step in bench.report.failures] == [("bad", message)]
    assert not bench.report.passed
    assert not bench.passed("bad")
    assert bench.passed("good")


async def test_step_that_does_not_end_fails_at_its_limit(bench: Bench) -> None:
    async with bench.step("hangs", "…", limit_s=0.01):
        await asyncio.get_running_loop().create_future()

    assert bench.report.failures[0].message == "no end within 0.01 s"


async def test_cancelled_bench_ends(bench: Bench) -> None:
    with pytest.raises(asyncio.CancelledError):
        async with bench.step("hangs", "…"):
            raise asyncio.CancelledError


async def test_skipped_step_is_no_failure_and_no_proof(bench: Bench) -> None:
    async with bench.step("expand", "…"):
        bench.skip("no such capability")

    assert [(step.outcome, step.message) for step in bench.report.steps] == [
        (Outcome.SKIPPED, "no such capability"),
    ]
    assert not bench.report.passed


async def test_known_fault_is_told_but_is_no_failure() -> None:
    bench = Bench(FakeClock(), ["check"])
    async with bench.step("check", "…"):
        raise Failure("no such chain")
    async with bench.step("add", "…"):
        pass

    assert [(step.outcome, step.message) for step in bench.report.steps] == [
        (Outcome.SKIPPED, "known fault: no such chain"),
        (Outcome.PASSED, ""),
    ]
    assert bench.report.passed


async def test_misuse_is_told(bench: Bench) -> None:
    with pytest.raises(RuntimeError):
        bench.skip("outside")
    async with bench.step("once", "…"):
        pass
    with pytest.raises(ValueError, match="once"):
        async with bench.step("once", "…"):
            pass


async def test_steps_do_not_nest(bench: Bench) -> None:
    async with bench.step("outer", "…"), bench.step("inner", "…"):
        pass

    assert "inner" in bench.report.failures[0].message


async def test_calls_belong_to_the_step_they_were_made_in(bench: Bench) -> None:
    bench.record("before", None, None)
    async with bench.step("one", "…"):
        bench.record("ADD", {"name": "net"}, b"{}")
    async with bench.step("two", "…"):
        raise Failure("nothing came")

    first, second = bench.report.steps
    assert [(c.name, c.request, c.answer) for c in first.calls] == [("ADD", '{"name": "net"}', "{}")]
    assert second.calls == ()
    read = json.loads(bench.report.to_json())
    assert read["passed"] is False
    assert read["steps"][0]["calls"][0]["name"] == "ADD"


async def test_secrets_are_not_shown(bench: Bench) -> None:
    request = csi_pb2.CreateVolumeRequest(name="v", secrets={"password": "hunter2"})
    async with bench.step("create", "…"):
        bench.record("CreateVolume", request, "x" * 10_000)

    (call,) = bench.report.steps[0].calls
    assert "hunter2" not in call.request
    assert "(hidden)" in call.request
    assert request.secrets["password"] == "hunter2"
    assert len(call.answer) < 5000


async def test_stream_without_end_is_kept_in_part(bench: Bench) -> None:
    async with bench.step("stream", "…"):
        for number in range(1000):
            bench.record("ListAndWatch", None, number)

    assert len(bench.report.steps[0].calls) == 200


Context: TypeAlias = "grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]"


class _Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it has no stubs
    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> object:
        if request.service == "absent":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return health_pb2.HealthCheckResponse(status=1)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> AsyncIterator[object]:
        for status in (2, 1):
            yield health_pb2.HealthCheckResponse(status=status)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")


@pytest.fixture
async def health(bench: Bench, tmp_path: Path) -> AsyncIterator[health_pb2_grpc.HealthStub]:
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(_Health(), server)
    server.add_insecure_port(f"unix:{tmp_path}/s")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s", interceptors=bench.interceptors()) as channel:
        yield health_pb2_grpc.HealthStub(channel)
    await server.stop(0)


async def test_grpc_calls_are_recorded_whether_they_succeed_or_fail(
    bench: Bench, health: health_pb2_grpc.HealthStub
) -> None:
    async with bench.step("check", "…"):
        await health.Check(health_pb2.HealthCheckRequest(service="here"))
        said = await expect_code(
            health.Check(health_pb2.HealthCheckRequest(service="absent")), grpc.StatusCode.NOT_FOUND
        )
        expect(said == "no such service", said)

    (step,) = bench.report.steps
    assert step.outcome is Outcome.PASSED, step.message
    assert [(c.name, c.request, c.answer) for c in step.calls] == [
        ("Check", 'service: "here"', "status: SERVING"),
        ("Check", 'service: "absent"', "NOT_FOUND: no such service"),
    ]


async def test_call_that_should_fail_and_does_not_fails_the_step(
    bench: Bench, health: health_pb2_grpc.HealthStub
) -> None:
    async with bench.step("check", "…"):
        await expect_code(health.Check(health_pb2.HealthCheckRequest(service="here")), grpc.StatusCode.NOT_FOUND)
    async with bench.step("other code", "…"):
        await expect_code(health.Check(health_pb2.HealthCheckRequest(service="absent")), grpc.StatusCode.INTERNAL)

    assert [step.message for step in bench.report.steps] == [
        "wanted NOT_FOUND, got an answer: status: SERVING",
        "wanted INTERNAL, got NOT_FOUND: no such service",
    ]


async def test_answers_of_a_stream_are_recorded_one_by_one(bench: Bench, health: health_pb2_grpc.HealthStub) -> None:
    seen = []
    async with bench.step("watch", "…"):
        async for answer in health.Watch(health_pb2.HealthCheckRequest(service="here")):
            seen.append(answer.status)

    (step,) = bench.report.steps
    assert seen == [2, 1]
    assert step.message == "UNAVAILABLE: going away"
    assert [call.answer for call in step.calls] == [
        "status: NOT_SERVING",
        "status: SERVING",
        "UNAVAILABLE: going away",
    ]


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="b: unknown; this kit knows a"):
        check_options({"b": "x"}, ("a",))
    with pytest.raises(ValueError, match="maybe"):
        option_flag({"a": "maybe"}, "a")


def test_flags_are_read() -> None:
    assert option_flag({"a": "true"}, "a")
    assert option_flag({}, "a", default=True)
    assert not option_flag({}, "a")
