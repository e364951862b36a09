"""Commands and threads."""

import asyncio
import gc
import os

import pytest

from tiphys_component.proc import CommandError, quiet_collector, run_command, to_thread


async def test_output_and_input_pass_through() -> None:
    result = await run_command(["cat"], timeout_s=5, stdin=b"hello")
    assert (result.returncode, result.stdout) == (0, b"hello")


async def test_failure_carries_code_and_text() -> None:
    with pytest.raises(CommandError, match="exit code 3: no such thing") as failed:
        await run_command(["sh", "-c", "echo no such thing >&2; exit 3"], timeout_s=5)
    assert failed.value.result is not None
    assert failed.value.result.returncode == 3


async def test_failure_may_be_asked_for() -> None:
    assert (await run_command(["false"], timeout_s=5, check=False)).returncode == 1


async def test_missing_program_says_so() -> None:
    with pytest.raises(CommandError, match="cannot start: No such file"):
        await run_command(["/nonexistent/program"], timeout_s=5)


async def test_slow_command_is_killed() -> None:
    with pytest.raises(CommandError, match=r"killed after 0\.05 s"):
        await run_command(["sleep", "60"], timeout_s=0.05)


async def test_cancelled_caller_kills_the_command() -> None:
    task = asyncio.ensure_future(run_command(["sleep", "60"], timeout_s=60))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)


async def test_large_input_and_output_pass_at_once() -> None:
    data = bytes(range(256)) * 4096
    result = await run_command(["sh", "-c", "cat; echo well >&2"], timeout_s=5, stdin=data)
    assert (result.stdout, result.stderr) == (data, b"well\n")


async def test_a_grandchild_that_keeps_the_outputs_open_does_not_outlast_the_time() -> None:
    with pytest.raises(CommandError, match=r"killed after 0\.05 s"):
        await run_command(["sh", "-c", "sleep 0.2 & exit 0"], timeout_s=0.05)


async def test_commands_leave_no_descriptor_behind() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    await run_command(["cat"], timeout_s=5, stdin=b"hello")
    with pytest.raises(CommandError):
        await run_command(["sleep", "60"], timeout_s=0.01)
    assert sorted(os.listdir("/proc/self/fd")) == before


async def test_starting_a_command_runs_nothing_that_is_registered_for_forks() -> None:
    # gRPC registers such handlers in C; Python's own are gone through in the same way.
    forks: list[str] = []
    os.register_at_fork(before=lambda: forks.append("fork"))
    await run_command(["true"], timeout_s=5)
    assert forks == []


async def test_blocking_work_goes_to_a_thread() -> None:
    assert await to_thread(int, "7") == 7


def test_quiet_collector_freezes_and_collects_from_then_on() -> None:
    before = gc.get_threshold()
    gc.disable()
    try:
        quiet_collector()
        assert gc.get_freeze_count() > 0
        assert gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
        gc.set_threshold(*before)
