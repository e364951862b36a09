"""Work that must not block the loop: commands, threads, and the collector's pauses."""

from __future__ import annotations

import asyncio
import gc
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# A command that was killed must be reaped within this, or the kernel holds it in an uninterruptible wait.
_REAP_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended; output is whole, as bytes."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes


class CommandError(Exception):
    """A command could not be started, ended with a code other than zero, or took too long."""

    def __init__(self, argv: Sequence[str], reason: str, result: CommandResult | None = None) -> None:
        super().__init__(f"{shlex.join(argv)}: {reason}")
        self.argv = tuple(argv)
        self.reason = reason
        self.result = result


async def run_command(
    argv: Sequence[str],
    *,
    timeout_s: float,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
    check: bool = True,
) -> CommandResult:
    """Run a command without a shell and collect what it wrote.

    The command is killed when it takes longer than timeout_s, and when the caller is cancelled. Raises CommandError if
    it can't be started or takes too long, and, unless check is false, if it ends with a code other than zero.
    """
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else pipe,
            stdout=pipe,
            stderr=pipe,
            env=None if env is None else dict(env),
            cwd=cwd,
        )
    except OSError as err:
        raise CommandError(argv, f"cannot start: {err.strerror or err}") from err
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await process.communicate(stdin)
    except TimeoutError as err:
        raise CommandError(argv, f"killed after {timeout_s:g} s") from err
    finally:
        await _reap(process)
    code = process.returncode if process.returncode is not None else -1
    result = CommandResult(tuple(argv), code, stdout, stderr)
    if check and code != 0:
        text = stderr.decode(errors="replace").strip() or stdout.decode(errors="replace").strip()
        raise CommandError(argv, f"exit code {code}: {text[-2000:]}", result)
    return result


async def _reap(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        try:
            process.kill()
        except ProcessLookupError:
            return
        async with asyncio.timeout(_REAP_TIMEOUT_S):
            await process.wait()


async def to_thread(func: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run blocking work in the loop's thread pool and return its result.

    A thread can't be stopped: when the caller is cancelled the work still runs to its end, unheard.
    """
    return await asyncio.to_thread(func, *args, **kwargs)


def quiet_collector() -> None:
    """Take all objects that live now out of the collector's sight, make it rare, and start it where it was off.

    Called after start and after the first fill of a large cache; with 100,000 objects in dicts a full collection was
    measured at 1.5 s.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()
