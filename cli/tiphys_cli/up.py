"""tiphys up"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import cast, get_args

import click
from rich.console import Console

from tiphys_cli.console import ProgressLines, run
from tiphys_cli.machine import read_machine
from tiphys_cli.options import DEFAULT_NAME, home_option, name_option, run_root_option
from tiphys_cluster.choices import Wish
from tiphys_cluster.images.builtin import HTTPD
from tiphys_cluster.settings import DEFAULT_POD_CIDR, FlannelBackend, StoreKind
from tiphys_cluster.up import Started, Startup
from tiphys_component.clock import SystemClock


@click.command("up")
@name_option
@home_option
@click.option(
    "--store", type=click.Choice(["sqlite", "etcd"]), default=None, help="What keeps the data.  [default: sqlite]"
)
@click.option("--port-offset", type=int, default=None, metavar="N", help="Shift every port by N, for a second cluster.")
@click.option("--nodes", type=int, default=None, metavar="N", help="How many nodes a new cluster has.  [default: 1]")
@click.option(
    "--flannel-backend",
    type=click.Choice(get_args(FlannelBackend)),
    default=None,
    help="How packets travel between pods of different nodes.  [default: vxlan]",
)
@click.option(
    "--pod-network-cidr",
    default=None,
    metavar="CIDR",
    help=f"Range of all pods of a new cluster, a /24 of it for each node.  [default: {DEFAULT_POD_CIDR}]",
)
@click.option(
    "--cni-conf",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="A network configuration list in place of ours; {{podCIDR}} in it stands for the node's range.",
)
@click.option(
    "--cni-bin-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="A folder of CNI plugins, beside ours and in place of those of the same names.",
)
@click.option("--fake", default=None, metavar="KIND:N", help="Simulate N devices on each node of a new cluster: gpu:8")
@run_root_option
def command(
    *,
    name: str,
    home: Path | None,
    store: str | None,
    port_offset: int | None,
    nodes: int | None,
    flannel_backend: str | None,
    pod_network_cidr: str | None,
    cni_conf: Path | None,
    cni_bin_dir: Path | None,
    fake: str | None,
    run_root: Path,
) -> None:
    """Start a cluster on this machine: control plane, and nodes, each with its own containerd.

    On a cluster that runs, put back what is missing and change nothing else. Options that are not given stay as they
    were at the last start. The data outlives `tiphys down`, and is found again in --home.
    """
    began = time.monotonic()
    console = Console(soft_wrap=True)
    wish = Wish(
        name=name,
        home=home,
        store=cast("StoreKind | None", store),
        port_offset=port_offset,
        nodes=nodes,
        devices=fake,
        flannel_backend=cast("FlannelBackend | None", flannel_backend),
        pod_cidr=pod_network_cidr,
        cni_conf=cni_conf,
        cni_bin_dir=cni_bin_dir,
    )
    started = run(_start(wish, run_root, console))
    _give_to_caller(started.layout.admin_conf)
    _say_what_to_try(console, started, time.monotonic() - began)


async def _start(wish: Wish, run_root: Path, console: Console) -> Started:
    with ProgressLines(console) as progress:
        return await Startup(wish, machine=read_machine(run_root), clock=SystemClock(), progress=progress).run()


def _give_to_caller(kubeconfig: Path) -> None:
    # Under sudo the cluster is root's, but its administrator is the one who typed the command.
    user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if user.isdigit() and group.isdigit():
        os.chown(kubeconfig, int(user), int(group))


def _say_what_to_try(console: Console, started: Started, took_s: float) -> None:
    settings, layout = started.settings, started.layout
    state = "is up already" if started.was_running else f"is up after {took_s:.1f} s"
    console.print(f"\n[bold]Cluster {settings.name} {state}.[/] Point kubectl at it:\n", highlight=False)
    lines = [f"    export KUBECONFIG={layout.admin_conf}", "", "Then try:", ""]
    if shutil.which("kubectl") is None:
        lines[2:2] = ["(kubectl was not found; Debian has it: apt-get install kubernetes-client)", ""]
    lines += [
        "    kubectl get nodes -o wide",
        f"    kubectl create deployment hello --image={HTTPD}:1 --replicas=3",
        "    kubectl expose deployment hello --port=80 --target-port=8080",
        "    kubectl rollout status deployment hello",
        "    kubectl exec deploy/hello -- wget -qO- http://hello",
        "",
        f"`tiphys status{_name(settings.name)}` shows what runs, `tiphys down{_name(settings.name)}` stops it.",
    ]
    console.print("\n".join(lines), highlight=False, markup=False)


def _name(name: str) -> str:
    return "" if name == DEFAULT_NAME else f" --name {name}"
