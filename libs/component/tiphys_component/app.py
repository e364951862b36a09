"""The life of a process: one uvloop, signals that cancel, a time of grace, an exit code, errors in one readable line.

Exit codes: 0 ended or stopped by a signal, 1 failed, 2 refused to start (a wrong flag, a StartupError).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn, Protocol

import uvloop

from tiphys_component.log import Logger, get_logger

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_REFUSED = 2


class Service(Protocol):
    """A part that works until it is cancelled; everything it started has ended when run() returns."""

    async def run(self) -> None:
        """Work until cancelled. A return or an error before that ends the process."""


class StartupError(Exception):
    """An expected reason why a process can't start; advice says what the user should do next."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(f"{message}: {advice}" if advice else message)
        self.message = message
        self.advice = advice


class UnexpectedEnd(Exception):
    """A task that should never end has ended."""


def listen_error(err: OSError, address: str, flag: str) -> StartupError:
    """The StartupError for a listener that could not be opened; names the address and the flag that changes it."""
    if err.errno == errno.EADDRINUSE:
        return StartupError(
            f"address {address} is in use", f"stop the process that listens there, or choose another with {flag}"
        )
    if err.errno == errno.EADDRNOTAVAIL:
        return StartupError(f"address {address} is not of this machine", f"give one of its own with {flag}")
    if err.errno in (errno.EACCES, errno.EPERM):
        return StartupError(
            f"no permission to listen on {address}", f"run as root, or choose a port over 1023 with {flag}"
        )
    return StartupError(f"cannot listen on {address}: {err.strerror or err}", f"check {flag}")


def run(
    main: Callable[[], Awaitable[None]] | Service, *, name: str, grace_s: float = 10.0, log: Logger | None = None
) -> int:
    """Run main, or a service's run(), on a fresh uvloop until it ends; return the exit code.

    SIGTERM and SIGINT cancel it; whatever has not ended grace_s later, or at a second signal, is abandoned and the
    process exits at once with 1. Errors are logged here and never raised: a StartupError as its one line, any other
    with its traceback. No loop may be running in this thread.
    """
    logger = log or get_logger(name)
    body = main.run if hasattr(main, "run") else main
    life = _Life(body, logger, grace_s)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(life.run())
    except KeyboardInterrupt:
        return EXIT_OK


class _Life:
    """One run of a process; keeps what the signal handlers must know."""

    def __init__(self, body: Callable[[], Awaitable[None]], log: Logger, grace_s: float) -> None:
        self._body = body
        self._log = log
        self._grace_s = grace_s
        self._stopped_by: signal.Signals | None = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("app.run needs a task")
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, loop, task, number)
        try:
            await self._body()
        except asyncio.CancelledError:
            if self._stopped_by is None:
                self._log.error("cancelled without a signal")
                return EXIT_FAILED
        except Exception as err:
            return self._report(err)
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        self._log.info("stopped", signal=self._stopped_by.name if self._stopped_by else "")
        return EXIT_OK

    def _on_signal(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any], number: signal.Signals) -> None:
        if self._stopped_by is not None:
            self._abandon(f"second signal {number.name}")
        self._stopped_by = number
        self._log.info("stopping", signal=number.name, grace_s=self._grace_s)
        loop.call_later(self._grace_s, self._abandon, f"not stopped within {self._grace_s:g} s")
        task.cancel()

    def _abandon(self, reason: str) -> NoReturn:
        waiting = sorted(task.get_name() for task in asyncio.all_tasks())
        self._log.error("exit without waiting", reason=reason, tasks=waiting)
        sys.stderr.flush()
        os._exit(EXIT_FAILED)

    def _report(self, err: Exception) -> int:
        refused = [leaf for leaf in leaves(err) if isinstance(leaf, StartupError)]
        if refused:
            for leaf in refused:
                self._log.error("cannot start", err=leaf.message, advice=leaf.advice)
            return EXIT_REFUSED
        self._log.error("failed", err="; ".join(str(leaf) or type(leaf).__name__ for leaf in leaves(err)), exc_info=err)
        return EXIT_FAILED


def leaves(err: BaseException) -> list[BaseException]:
    """The errors inside nested exception groups, in order; of a plain error, itself."""
    if isinstance(err, BaseExceptionGroup):
        return [leaf for inner in err.exceptions for leaf in leaves(inner)]
    return [err]


async def interruptible(work: Coroutine[Any, Any, None], hold: Callable[[asyncio.Task[None]], None]) -> None:
    """Do work that others may cancel: hold is given its task. Returns also when it was; raises what it raises.

    The one place where a task lives outside of a TaskGroup: a group whose child fails while the group is cancelled
    tells the child's error and forgets the cancellation (cpython#116720, mended in 3.13), so that a loop which handles
    that error and goes on would never end. Here the cancellation wins, after the work has ended.
    """
    task = asyncio.Task(work, name="interruptible work")
    hold(task)
    try:
        await asyncio.wait((task,))
    except asyncio.CancelledError:
        task.cancel()
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                # Told twice to end, it still has to wait: the work must not outlive its owner.
                await asyncio.wait((task,))
        if not task.cancelled():
            # Heard, or the loop would complain of an error that nobody took.
            task.exception()
        raise
    if not task.cancelled():
        task.result()


async def never_ends(work: Coroutine[Any, Any, object], name: str) -> NoReturn:
    """Run work that should go on until it is cancelled; its return is a failure.

    Raises UnexpectedEnd when it returns, or was cancelled from inside, which a TaskGroup would not notice; and what it
    raises.
    """
    try:
        await work
    except asyncio.CancelledError as err:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise UnexpectedEnd(f"{name} was cancelled from inside") from err
    raise UnexpectedEnd(f"{name} ended, though it should run until it is cancelled")


def start_loop(group: asyncio.TaskGroup, work: Coroutine[Any, Any, object], name: str) -> asyncio.Task[NoReturn]:
    """Start work that should never end as a named task of the group; its end is a failure of the group."""
    return group.create_task(never_ends(work, name), name=name)


async def run_services(**services: Service) -> None:
    """Run services side by side until cancelled; the end or failure of any one ends all, and is raised."""
    async with asyncio.TaskGroup() as group:
        for name, service in services.items():
            start_loop(group, service.run(), name)
