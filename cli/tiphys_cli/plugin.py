"""tiphys plugin"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
from collections.abc import Awaitable, Mapping, Sequence
from typing import NoReturn, Protocol, cast

import click
from rich.console import Console
from rich.table import Table

from tiphys_cli.console import EXIT_FAILED, escape, print_table
from tiphys_component.clock import SystemClock
from tiphys_sdk.conformance.bench import Bench, Outcome, Report, Step

# Kind of plugin and the module of its kit; a kit is imported only when it is to run.
KITS: Mapping[str, str] = {
    "cni": "tiphys_sdk.conformance.cni.kit",
    "cri": "tiphys_sdk.conformance.cri.kit",
    "csi": "tiphys_sdk.conformance.csi.kit",
    "device": "tiphys_sdk.conformance.device.kit",
}
_EXIT_USAGE = 2
_EXIT_INTERRUPTED = 130
_COLORS = {Outcome.PASSED: "green", Outcome.FAILED: "red", Outcome.SKIPPED: "yellow"}


class Kit(Protocol):
    """A kit's module. run raises ValueError where endpoint or options make no sense."""

    def run(self, endpoint: str, bench: Bench, options: Mapping[str, str]) -> Awaitable[None]:
        """Opens one step of the bench after the other."""


@click.group("plugin")
def command() -> None:
    """Test plugins against their contract."""


@command.command("test")
@click.argument("endpoint")
@click.option("--kind", type=click.Choice(list(KITS)), required=True, help="What the plugin is.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="An option of the kit; may be repeated.")
@click.option("--known-fault", "known", multiple=True, metavar="STEP", help="A step whose failure is no news; repeat.")
def test(*, endpoint: str, kind: str, output: str, options: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Run contract and idempotency checks on the plugin at ENDPOINT: a socket, or for cni an executable or a list.

    The exit code is 0 when every step passed, 1 when one failed, 2 when nothing could be tested.
    """
    report = _run(_load(kind), endpoint, _parse(options), Bench(SystemClock(), known))
    if output == "json":
        click.echo(report.to_json())
    else:
        _show(Console(soft_wrap=True), report)
    sys.exit(0 if report.passed else EXIT_FAILED)


def _load(kind: str) -> Kit:
    module = KITS[kind]
    try:
        return cast(Kit, importlib.import_module(module))
    except ModuleNotFoundError as err:
        if err.name is None or not module.startswith(err.name):
            raise
        _refuse(f"there is no kit for {kind} plugins in this installation: {module} is missing")


def _parse(options: Sequence[str]) -> Mapping[str, str]:
    split = [option.partition("=") for option in options]
    for name, equals, _ in split:
        if not name or not equals:
            _refuse(f"--option {name}: NAME=VALUE is wanted")
    return {name: value for name, _, value in split}


def _run(kit: Kit, endpoint: str, options: Mapping[str, str], bench: Bench) -> Report:
    async def work() -> None:
        # A test that is ended early takes away what it made, as at Ctrl-C.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os.kill, os.getpid(), signal.SIGINT)
        await kit.run(endpoint, bench, options)

    try:
        asyncio.run(work())
    except ValueError as err:
        _refuse(str(err))
    except KeyboardInterrupt:
        sys.exit(_EXIT_INTERRUPTED)
    return bench.report


def _refuse(message: str) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(_EXIT_USAGE)


def _show(console: Console, report: Report) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("STEP", "OUTCOME", "TOOK", "DEMAND"):
        table.add_column(title)
    for step in report.steps:
        color = _COLORS[step.outcome]
        table.add_row(escape(step.name), f"[{color}]{step.outcome}[/]", f"{step.took_s:.2f} s", escape(step.demand))
    print_table(console, table)
    for step in report.steps:
        if step.outcome is not Outcome.PASSED:
            _explain(console, step)
    counts = {outcome: sum(1 for s in report.steps if s.outcome is outcome) for outcome in Outcome}
    console.print("\n" + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()), highlight=False)


def _explain(console: Console, step: Step) -> None:
    color = _COLORS[step.outcome]
    console.print(f"\n[{color}]{step.outcome}[/] [bold]{escape(step.name)}[/]: {escape(step.message)}", highlight=False)
    if step.outcome is not Outcome.FAILED:
        return
    for call in step.calls:
        console.print(f"  {escape(call.name)} [dim]<-[/] {escape(call.request)}", highlight=False)
        console.print(f"  {' ' * len(call.name)} [dim]->[/] {escape(call.answer)}", highlight=False)
