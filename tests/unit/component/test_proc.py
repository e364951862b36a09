"""Commands and threads."""

import asyncio
import gc

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
