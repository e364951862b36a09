"""The life of a process."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tiphys_component import app

REFUSE = app.StartupError("address 127.0.0.1:1 is in use", "choose another with --secure-port")


async def _end() -> None:
    await asyncio.sleep(0)


async def _refuse() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_raise(REFUSE))


async def _raise(err: Exception) -> None:
    raise err


async def _signal_self() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(10)


async def _fail() -> None:
    await _raise(KeyError("boom"))


@pytest.mark.parametrize(
    ("main", "code", "text"),
    [
        pytest.param(_end, 0, "stopped", id="returns"),
        pytest.param(_signal_self, 0, "signal=SIGTERM", id="stopped by a signal"),
        pytest.param(_refuse, 2, "choose another with --secure-port", id="expected failure, inside a group"),
        pytest.param(_fail, 1, "boom", id="unexpected failure"),
    ],
)
def test_exit_code_and_last_line(
    main: Callable[[], Coroutine[Any, Any, None]], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(main, name="test") == code
    out = "".join(capsys.readouterr())
    assert text in out
    assert ("Traceback" in out) == (code == 1)


def test_service_that_ignores_its_cancel_is_abandoned() -> None:
    script = (
        "import asyncio, os, signal\n"
        "from tiphys_component import app\n"
        "async def main():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    while True:\n"
        "        try: await asyncio.sleep(9)\n"
        "        except asyncio.CancelledError: pass\n"
        "raise SystemExit(app.run(main, name='test', grace_s=0.01))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=20, check=False)
    assert done.returncode == 1
    assert b"not stopped within 0.01 s" in done.stdout + done.stderr


async def test_end_of_a_loop_that_should_not_end_fails_the_group() -> None:
    with pytest.raises(ExceptionGroup) as failed:
        async with asyncio.TaskGroup() as group:
            app.start_loop(group, _end(), "reflector")
    assert "reflector ended" in str(app.leaves(failed.value)[0])


async def test_loop_that_is_cancelled_from_inside_fails_the_group() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(ExceptionGroup) as failed:
        async with asyncio.TaskGroup() as group:
            app.start_loop(group, cancelled(), "reflector")
    assert "reflector was cancelled from inside" in str(app.leaves(failed.value)[0])


async def test_services_end_together() -> None:
    stopped = asyncio.Event()

    class Patient:
        async def run(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

    class Brief:
        async def run(self) -> None:
            await asyncio.sleep(0)

    with pytest.raises(ExceptionGroup):
        await app.run_services(patient=Patient(), brief=Brief())
    assert stopped.is_set()


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EADDRINUSE, "address 10.0.0.1:53 is in use"),
        (errno.EADDRNOTAVAIL, "address 10.0.0.1:53 is not of this machine"),
        (errno.EACCES, "no permission to listen on 10.0.0.1:53"),
        (errno.EMFILE, "cannot listen on 10.0.0.1:53"),
    ],
)
def test_listen_error_names_address_and_flag(number: int, text: str) -> None:
    err = app.listen_error(OSError(number, os.strerror(number)), "10.0.0.1:53", "--bind-address")
    assert text in err.message
    assert "--bind-address" in err.advice


async def test_a_cancellation_is_not_lost_where_the_work_fails_at_the_same_moment() -> None:
    """Whoever handles the work's error and goes on, as a loop that tries again does, must end all the same."""

    async def fail() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            raise ValueError("while it ended")

    held: list[asyncio.Task[None]] = []
    async with asyncio.TaskGroup() as group:
        task = group.create_task(app.interruptible(fail(), held.append))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    assert held[0].done()


async def test_work_that_others_interrupt_just_returns_and_its_errors_are_raised() -> None:
    async def interrupt_itself() -> None:
        held[0].cancel()
        await asyncio.sleep(0)

    async def fail() -> None:
        raise ValueError("of its own")

    held: list[asyncio.Task[None]] = []
    await app.interruptible(interrupt_itself(), held.append)
    assert held[0].cancelled()
    with pytest.raises(ValueError, match="of its own"):
        await app.interruptible(fail(), held.append)
