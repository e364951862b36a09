"""Work that must not block the loop: commands, threads, and the collector's pauses."""

from __future__ import annotations

import asyncio
import gc
import os
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# A command that was killed must be reaped within this, or the kernel holds it in an uninterruptible wait.
_REAP_TIMEOUT_S = 5.0
_PIECE_BYTES = 65536


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
    process = _start(argv, stdin, env, cwd)
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await _outputs(process)
            await _wait_end(process)
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


def _start(
    argv: Sequence[str], stdin: bytes | None, env: Mapping[str, str] | None, cwd: Path | str | None
) -> subprocess.Popen[bytes]:
    """Starts the command; returns once it is executed. Raises CommandError.

    Not by the loop: uvloop forks, and a fork runs what gRPC has registered for it, beside gRPC's own threads. A child
    of a service was seen to die of signal 11 there, before it executed anything. Popen uses vfork, which runs nothing.
    The input is a file in memory: nobody has to write while the command runs.
    """
    with ExitStack() as files:
        given: IO[bytes] | int = subprocess.DEVNULL
        if stdin is not None:
            given = files.enter_context(open(os.memfd_create("stdin"), "w+b"))
            given.write(stdin)
            given.seek(0)
        try:
            return subprocess.Popen(
                list(argv),
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=None if env is None else dict(env),
                cwd=cwd,
            )
        except OSError as err:
            raise CommandError(argv, f"cannot start: {err.strerror or err}") from err


async def _outputs(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """All that the command writes, until nobody can write any more."""
    async with asyncio.TaskGroup() as group:
        stdout = group.create_task(_read(process.stdout), name="stdout")
        stderr = group.create_task(_read(process.stderr), name="stderr")
    return stdout.result(), stderr.result()


async def _read(pipe: IO[bytes] | None) -> bytes:
    assert pipe is not None
    # Not by a transport: uvloop's closes the descriptor, and so does the pipe, by when another may have its number.
    loop, ready, data = asyncio.get_running_loop(), asyncio.Event(), bytearray()
    os.set_blocking(pipe.fileno(), False)
    loop.add_reader(pipe.fileno(), ready.set)
    try:
        while True:
            await ready.wait()
            ready.clear()
            try:
                piece = os.read(pipe.fileno(), _PIECE_BYTES)
            except BlockingIOError:
                continue
            if not piece:
                return bytes(data)
            data += piece
    finally:
        loop.remove_reader(pipe.fileno())


async def _wait_end(process: subprocess.Popen[bytes]) -> None:
    ended, loop, pidfd = asyncio.Event(), asyncio.get_running_loop(), os.pidfd_open(process.pid)
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    process.wait()


async def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.kill()
        # To kill asks first whether it has ended, which reaps it: then it has no number any more.
        if process.returncode is None:
            async with asyncio.timeout(_REAP_TIMEOUT_S):
                await _wait_end(process)
    finally:
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


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
