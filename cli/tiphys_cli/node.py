"""tiphys node"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from tiphys_cli.console import ProgressLines, run
from tiphys_cli.machine import read_machine
from tiphys_cli.options import name_option, run_root_option
from tiphys_cli.status import print_nodes
from tiphys_cluster.choices import layout_for
from tiphys_cluster.membership import DRAIN_TIMEOUT_S, Membership
from tiphys_cluster.preflight import check_root
from tiphys_cluster.progress import Progress
from tiphys_cluster.status import read_status
from tiphys_component.clock import SystemClock


@click.group("node")
def command() -> None:
    """Add nodes to a running cluster, and remove them."""


@command.command("add")
@click.argument("node", required=False)
@click.option("--fake", default="", metavar="KIND:N", help="Simulate N devices on the node: gpu:8")
@name_option
@run_root_option
def add(*, node: str | None, fake: str, name: str, run_root: Path) -> None:
    """Start a node named NODE (default: the first free node-N), and wait until it is Ready."""
    console = Console(soft_wrap=True)
    with ProgressLines(console) as progress:
        added = run(_add(node, devices=fake, name=name, run_root=run_root, progress=progress))
    console.print(f"Node {added} is Ready.", highlight=False, markup=False)


@command.command("remove")
@click.argument("node")
@click.option(
    "--timeout", "timeout_s", default=DRAIN_TIMEOUT_S, show_default=True, help="Seconds that its pods have to end."
)
@name_option
@run_root_option
def remove(*, node: str, timeout_s: float, name: str, run_root: Path) -> None:
    """Move the pods off NODE, stop it and take away every trace of it, its data too."""
    console = Console(soft_wrap=True)
    with ProgressLines(console) as progress:
        run(_remove(node, timeout_s=timeout_s, name=name, run_root=run_root, progress=progress))
    console.print(f"Node {node} is gone.", highlight=False, markup=False)


@command.command("list")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@name_option
@run_root_option
def list_nodes(*, output: str, name: str, run_root: Path) -> None:
    """Show a cluster's nodes."""
    status = run(read_status(layout_for(name, None, run_root)))
    if output == "json":
        click.echo(json.dumps([asdict(node) for node in status.nodes], indent=2))
    else:
        print_nodes(Console(soft_wrap=True), status)


async def _add(node: str | None, *, devices: str, name: str, run_root: Path, progress: Progress) -> str:
    return await _membership(name, run_root, progress, "node add").add(node, devices=devices)


async def _remove(node: str, *, timeout_s: float, name: str, run_root: Path, progress: Progress) -> None:
    await _membership(name, run_root, progress, "node remove").remove(node, drain_timeout_s=timeout_s)


def _membership(name: str, run_root: Path, progress: Progress, verb: str) -> Membership:
    check_root(verb)
    layout = layout_for(name, None, run_root)
    return Membership(layout, machine=read_machine(run_root), clock=SystemClock(), progress=progress)
