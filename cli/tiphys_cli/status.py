"""tiphys status"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tiphys_cli.console import EXIT_FAILED, print_table, run
from tiphys_cli.options import name_option, run_root_option
from tiphys_cluster.choices import layout_for
from tiphys_cluster.status import Process, Status, read_status


@click.command("status")
@name_option
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@run_root_option
def command(*, name: str, output: str, run_root: Path) -> None:
    """Show a cluster's processes and nodes. The exit code is 0 when all is well, 1 when not, 3 when it is not up."""
    status = run(_read(name, run_root))
    if output == "json":
        click.echo(json.dumps(_as_dict(status), indent=2))
    else:
        _show(Console(soft_wrap=True), status)
    sys.exit(0 if status.is_healthy else EXIT_FAILED)


async def _read(name: str, run_root: Path) -> Status:
    return await read_status(layout_for(name, None, run_root))


def _as_dict(status: Status) -> dict[str, object]:
    return {
        "name": status.settings.name,
        "healthy": status.is_healthy,
        "home": str(status.layout.home),
        "kubeconfig": str(status.layout.admin_conf),
        "store": status.settings.store,
        "apiReady": status.api_ready,
        "processes": [asdict(process) for process in status.processes],
        "nodes": [asdict(node) for node in status.nodes],
    }


def _show(console: Console, status: Status) -> None:
    settings = status.settings
    api = "[green]ready[/]" if status.api_ready else "[red]not ready[/]"
    console.print(f"[bold]{settings.name}[/]  API server {api}, store {settings.store}, home {status.layout.home}")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("PROCESS", "STATE", "PID", "RESTARTS", "ADDRESS", "PORTS"):
        table.add_column(title)
    for process in status.processes:
        table.add_row(
            process.name,
            _state(process),
            str(process.pid or "-"),
            str(process.restarts),
            process.address if process.answers else "",
            " ".join(str(port) if ok else f"[red]{port}?[/]" for port, ok in process.answers),
        )
    print_table(console, table)
    print_nodes(console, status)


def print_nodes(console: Console, status: Status) -> None:
    """The table of a cluster's nodes."""
    nodes = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("NODE", "STATE", "ADDRESS", "REASON"):
        nodes.add_column(title)
    for node in status.nodes:
        nodes.add_row(node.name, "[green]Ready[/]" if node.ready else "[red]NotReady[/]", node.address, node.reason)
    print_table(console, nodes)


def _state(process: Process) -> str:
    if process.state == "running":
        return "[green]running[/]" if process.is_healthy else "[yellow]starting[/]"
    return f"[red]{process.state}[/] ({process.last_exit})" if process.last_exit else f"[red]{process.state}[/]"
