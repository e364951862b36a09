"""tiphys kubeconfig"""

from __future__ import annotations

from pathlib import Path

import click

from tiphys_cli.console import fail
from tiphys_cli.options import home_option, name_option, run_root_option
from tiphys_cluster.choices import layout_for
from tiphys_cluster.errors import ClusterError


@click.command("kubeconfig")
@name_option
@home_option
@click.option("--path", "only_path", is_flag=True, help="Print the file's path instead of its content.")
@run_root_option
def command(*, name: str, home: Path | None, only_path: bool, run_root: Path) -> None:
    """Print a cluster's kubeconfig; `export KUBECONFIG=$(tiphys kubeconfig --path)` points kubectl at it."""
    try:
        layout = layout_for(name, home, run_root)
        text = layout.admin_conf.read_text()
    except FileNotFoundError:
        fail(ClusterError(f"cluster {name!r} has no kubeconfig yet", f"Start it: tiphys up --name {name}"))
    except PermissionError as err:
        fail(ClusterError(f"{err.filename} may not be read: it holds a key", "Run it again with sudo."))
    except ClusterError as err:
        fail(err)
    click.echo(str(layout.admin_conf) if only_path else text, nl=only_path)
