"""The frame of every conformance kit: named steps, the calls made in each, and a report.

A kit is `tiphys_sdk.conformance.<kind>.kit` with `async def run(endpoint, bench, options)`. It opens one step after the
other; what fails inside a step fails that step alone, with the calls made in it, and the kit goes on:

    async with bench.step("delete twice", "DeleteVolume of what is gone succeeds (csi.v1, DeleteVolume)"):
        await node.DeleteVolume(request)
        await node.DeleteVolume(request)

Calls over channels made with `interceptors()` are recorded by themselves; others by `record`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from types import TracebackType
from typing import NoReturn

import grpc
from google.protobuf.message import Message

from tiphys_component.clock import Clock
from tiphys_sdk.conformance.recording import Call, interceptors, shown

DEFAULT_LIMIT_S = 60.0
# A stream may talk for as long as its step takes: the first calls of a step are kept, the rest are counted.
_MOST_CALLS = 200


class Failure(Exception):
    """A demand that is not met; the message says what was seen instead."""


class _Skipped(Exception):
    """Ends a step that does not apply."""


class Outcome(StrEnum):
    """How a step ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Step:
    """One step that is over: what was demanded, how it ended and why, and the calls made in it, in order."""

    name: str
    demand: str
    outcome: Outcome
    message: str
    calls: tuple[Call, ...]
    took_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """Every step in order."""

    steps: tuple[Step, ...]

    @property
    def passed(self) -> bool:
        """Whether no step failed, and at least one passed: a bench that looked at nothing proves nothing."""
        outcomes = {step.outcome for step in self.steps}
        return Outcome.FAILED not in outcomes and Outcome.PASSED in outcomes

    @property
    def failures(self) -> tuple[Step, ...]:
        """The steps that failed."""
        return tuple(step for step in self.steps if step.outcome is Outcome.FAILED)

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps({"passed": self.passed, "steps": [asdict(step) for step in self.steps]}, indent=2)


class _Open(AbstractAsyncContextManager[None, bool]):
    """An open step. Says by its type what a generator's can't: that exceptions may end with it."""

    def __init__(self, step: AbstractAsyncContextManager[None]) -> None:
        self._step = step

    async def __aenter__(self) -> None:
        await self._step.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return bool(await self._step.__aexit__(kind, err, trace))


class Bench:
    """Runs steps one after the other and keeps what happened. For one kit run in one loop; steps never nest.

    `clock` measures how long a step takes, and is what a kit waits by; its time limit is the loop's, as what is tested
    lives outside. A step among known_faults that fails is told as skipped.
    """

    def __init__(self, clock: Clock, known_faults: Iterable[str] = ()) -> None:
        self.clock = clock
        self._known_faults = frozenset(known_faults)
        self._steps: list[Step] = []
        self._calls: list[Call] = []
        self._current = ""

    @property
    def report(self) -> Report:
        """What is known so far."""
        return Report(tuple(self._steps))

    def passed(self, name: str) -> bool:
        """Whether the step of that name is over and passed: for steps that make no sense without an earlier one."""
        return any(step.name == name and step.outcome is Outcome.PASSED for step in self._steps)

    def step(
        self, name: str, demand: str, *, limit_s: float = DEFAULT_LIMIT_S
    ) -> AbstractAsyncContextManager[None, bool]:
        """One demand. An exception inside fails the step and goes no further; cancellation does.

        name is unique in the kit: it is what a test or a reader of the report asks for. Raises ValueError where it is
        not, RuntimeError where a step is open.
        """
        return _Open(self._step(name, demand, limit_s))

    @asynccontextmanager
    async def _step(self, name: str, demand: str, limit_s: float) -> AsyncIterator[None]:
        if self._current:
            raise RuntimeError(f"step {name!r} inside of step {self._current!r}")
        if any(step.name == name for step in self._steps):
            raise ValueError(f"two steps are named {name!r}")
        self._current, self._calls, began = name, [], self.clock.monotonic()
        outcome, message = Outcome.PASSED, ""
        try:
            async with asyncio.timeout(limit_s) as limit:
                yield
        except _Skipped as skipped:
            outcome, message = Outcome.SKIPPED, str(skipped)
        except Exception as err:
            outcome = Outcome.FAILED
            message = f"no end within {limit_s:g} s" if limit.expired() else explanation(err)
            if name in self._known_faults:
                outcome, message = Outcome.SKIPPED, f"known fault: {message}"
        finally:
            self._current = ""
        took_s = self.clock.monotonic() - began
        self._steps.append(Step(name, demand, outcome, message, tuple(self._calls), took_s))

    def skip(self, reason: str) -> NoReturn:
        """Ends the open step as one that does not apply. Raises RuntimeError outside of a step."""
        if not self._current:
            raise RuntimeError(f"nothing to skip: {reason}")
        raise _Skipped(reason)

    def record(self, name: str, request: object, answer: object) -> None:
        """Keeps a call of the open step: its name, what was sent, what came back. Secrets' values are left out."""
        if len(self._calls) < _MOST_CALLS:
            self._calls.append(Call(name, shown(request), shown(answer)))

    def interceptors(self) -> list[grpc.aio.ClientInterceptor]:
        """What a channel is opened with so that its calls are recorded."""
        return interceptors(self.record)


def expect(holds: object, seen: str) -> None:
    """Raises Failure with what was seen, unless the demand holds."""
    if not holds:
        raise Failure(seen)


def explanation(err: BaseException) -> str:
    """One line about a failure: a gRPC status by name, groups opened, others by class and text."""
    if isinstance(err, BaseExceptionGroup):
        return "; ".join(explanation(one) for one in err.exceptions)
    if isinstance(err, grpc.aio.AioRpcError):
        return f"{err.code().name}: {err.details()}"
    if isinstance(err, Failure):
        return str(err)
    if isinstance(err, TimeoutError):
        return f"no answer in time{': ' if str(err) else ''}{err}"
    return f"{type(err).__name__}: {err}"


async def expect_code(answer: grpc.aio.Call, *codes: grpc.StatusCode) -> str:
    """Waits for a call that must fail with one of the codes; gives the message. Raises Failure otherwise."""
    wanted = " or ".join(code.name for code in codes)
    try:
        found: Message = await answer  # type: ignore[misc]
    except grpc.aio.AioRpcError as err:
        if err.code() in codes:
            return str(err.details())
        raise Failure(f"wanted {wanted}, got {explanation(err)}") from err
    raise Failure(f"wanted {wanted}, got an answer: {shown(found)}")


def option_flag(options: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    """A yes or no among the options. Raises ValueError."""
    text = options.get(name, "true" if default else "false")
    if text not in ("true", "false"):
        raise ValueError(f"--option {name}: {text!r} is neither true nor false")
    return text == "true"


def check_options(options: Mapping[str, str], known: Sequence[str]) -> None:
    """Raises ValueError that names the option a kit doesn't know."""
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"--option {unknown[0]}: unknown; this kit knows {', '.join(known) or 'none'}")
