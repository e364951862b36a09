"""What the command shows: progress while it works, and errors that say what to do."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

from rich.console import Console
from rich.measure import Measurement
from rich.status import Status
from rich.table import Table

from tiphys_cluster.errors import ClusterError, NotRunningError, PreflightError

EXIT_FAILED = 1
EXIT_NOT_RUNNING = 3

T = TypeVar("T")


class ProgressLines:
    """Steps as lines: the one that runs with a spinner on a terminal, those done with the time they took."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._spinner: Status | None = None
        self._text = ""
        self._began = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish(ok=error is None)

    def step(self, text: str) -> None:
        """A step begins; the one before it is done."""
        self._finish(ok=True)
        self._text, self._began = text, time.monotonic()
        if self._console.is_terminal:
            self._spinner = self._console.status(text)
            self._spinner.start()

    def note(self, text: str) -> None:
        """A line of its own."""
        self._console.print(f"  {text}", highlight=False, markup=False)

    def _finish(self, *, ok: bool) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None
        if self._text:
            mark = "[green]✓[/]" if ok else "[red]✗[/]"
            self._console.print(f"{mark} {self._text} [dim]{time.monotonic() - self._began:.1f} s[/]", highlight=False)
        self._text = ""


def print_table(console: Console, table: Table) -> None:
    """Print a table as wide as its content: no name is cut, however narrow the terminal or a pipe's 80 columns."""
    unlimited = console.options.update(max_width=sys.maxsize)
    table.width = Measurement.get(console, unlimited, table).maximum
    console.print(table, soft_wrap=True)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run work to its end; a ClusterError ends the command with its message and exit code 1 (3: not running)."""
    try:
        return asyncio.run(work)
    except ClusterError as err:
        fail(err)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted: `tiphys up` goes on from here, `tiphys down` clears what was made\n")
        sys.exit(130)


def fail(error: ClusterError) -> NoReturn:
    """End the command with the error's message."""
    console = Console(stderr=True, soft_wrap=True)
    problems = error.problems if isinstance(error, PreflightError) else (error,)
    for problem, following in zip(problems, (*problems[1:], None), strict=True):
        console.print(f"[bold red]error:[/] {escape(problem.message)}", highlight=False)
        # Several ports in use have one remedy: said once, after the last of them.
        if problem.hint and (following is None or following.hint != problem.hint):
            console.print(f"  {escape(problem.hint)}", highlight=False)
    sys.exit(EXIT_NOT_RUNNING if isinstance(error, NotRunningError) else EXIT_FAILED)


def escape(text: str) -> str:
    """Text that rich shows as it is."""
    return text.replace("[", "\\[").replace("\n", "\n  ")
