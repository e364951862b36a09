"""tiphys explain"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import click
from google.protobuf.json_format import MessageToDict
from rich.console import Console
from rich.table import Table

from tiphys.scheduler.v1 import scheduler_pb2
from tiphys_apimachinery.errors import APIError
from tiphys_cli.console import fail, print_table, run
from tiphys_cli.options import name_option, run_root_option
from tiphys_client.kubeconfig import load
from tiphys_client.transport import GrpcTransport
from tiphys_cluster.choices import layout_for
from tiphys_cluster.errors import ClusterError
from tiphys_cluster.status import read_status

_SERVICE = "tiphys.scheduler.v1.SchedulerService"


@click.command("explain")
@click.argument("what", metavar="pod/NAME")
@click.option("-n", "--namespace", default="default", show_default=True, help="The pod's namespace.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@name_option
@run_root_option
def command(*, what: str, namespace: str, output: str, name: str, run_root: Path) -> None:
    """Say where the scheduler would put a pod now, what each plugin has against which nodes, and what would help."""
    kind, _, pod = what.rpartition("/")
    if kind not in ("", "pod", "pods", "po"):
        fail(ClusterError(f"{what!r} is no pod", "Ask for pod/NAME"))
    request = scheduler_pb2.ExplainRequest(namespace=namespace, name=pod)
    try:
        reply = run(_ask(request, name, run_root))
    except APIError as err:
        fail(ClusterError(f"pod {namespace}/{pod}: {err}", "List pods: kubectl get pods -A"))
    if output == "json":
        click.echo(json.dumps(MessageToDict(reply), indent=2))
        return
    show(Console(soft_wrap=True, file=sys.stdout), f"{namespace}/{pod}", reply)


async def _ask(request: scheduler_pb2.ExplainRequest, name: str, run_root: Path) -> scheduler_pb2.ExplainResponse:
    layout = layout_for(name, None, run_root)
    status = await read_status(layout)
    config = load(layout.admin_conf)
    address = f"127.0.0.1:{status.settings.ports.scheduler_grpc}"
    transport = GrpcTransport(replace(config, grpc_address=address))
    try:
        raw = await transport.unary(_SERVICE, "Explain", request.SerializeToString(), timeout_s=10)
    finally:
        await transport.close()
    return scheduler_pb2.ExplainResponse.FromString(raw)


def show(console: Console, pod: str, reply: scheduler_pb2.ExplainResponse) -> None:
    """The answer for people: what would happen, the classes of nodes, and what would help."""
    if reply.bound:
        console.print(f"[bold]{pod}[/]  is on {reply.bound}; placed anew it would go to {reply.best or 'no node'}")
    elif reply.best:
        console.print(f"[bold]{pod}[/]  goes to [green]{reply.best}[/], score {reply.best_score}")
    else:
        console.print(f"[bold]{pod}[/]  [red]fits nowhere[/]: {reply.message}", highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("NODES", "VERDICT", "FOR EXAMPLE"):
        table.add_column(title)
    for item in reply.classes:
        table.add_row(str(item.count), _verdict(item), ", ".join(item.nodes[:3]))
    print_table(console, table)
    for remedy in reply.remedies:
        where = remedy.example if remedy.nodes == 1 else f"{remedy.nodes} nodes, {remedy.example} first"
        console.print(f"would fit: {remedy.text} ({where})", highlight=False)


def _verdict(item: scheduler_pb2.NodeClass) -> str:
    if not item.refusals:
        parts = ", ".join(f"{name} {score}" for name, score in sorted(item.scores.items(), key=lambda s: -s[1]))
        return f"[green]fits[/] {parts}"
    return "; ".join(f"[red]{r.plugin}[/] {', '.join(r.reasons)}" for r in item.refusals)
