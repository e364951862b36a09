"""tiphys down"""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from tiphys_cli.console import ProgressLines, run
from tiphys_cli.options import home_option, name_option, run_root_option
from tiphys_cluster.choices import kept_settings, layout_for
from tiphys_cluster.down import Teardown
from tiphys_cluster.layout import Layout
from tiphys_cluster.preflight import check_root
from tiphys_cluster.settings import Settings
from tiphys_component.clock import SystemClock


@click.command("down")
@name_option
@home_option
@click.option("--delete", is_flag=True, help="Delete the cluster's home too: data, certificates, logs, images.")
@run_root_option
def command(*, name: str, home: Path | None, delete: bool, run_root: Path) -> None:
    """Stop a cluster: no process, container, mount, namespace, interface, rule or cgroup of it stays.

    Containers end at once, as when a machine is switched off. What is in the cluster's home stays for the next
    `tiphys up`, unless --delete is given. Works after crashes, on a cluster that never came up, and twice.
    """
    run(_stop(name, home, run_root, delete=delete))


async def _stop(name: str, home: Path | None, run_root: Path, *, delete: bool) -> None:
    check_root("down")
    console = Console(soft_wrap=True)
    layout = layout_for(name, home, run_root)
    settings = kept_settings(layout) or Settings(name)
    with ProgressLines(console) as progress:
        await Teardown(layout, settings, clock=SystemClock(), progress=progress).run(delete_home=delete)
    console.print(_epilogue(layout, delete=delete), highlight=False, markup=False)


def _epilogue(layout: Layout, *, delete: bool) -> str:
    if delete or not layout.home.exists():
        return f"Cluster {layout.name} is gone."
    return f"Cluster {layout.name} is down. Its data stays in {layout.home}; `tiphys down --delete` removes it."
