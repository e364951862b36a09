"""tiphys image"""

from __future__ import annotations

from pathlib import Path

import click

from tiphys_cli.console import run
from tiphys_cli.options import name_option, run_root_option
from tiphys_cluster.choices import layout_for
from tiphys_cluster.claims import read_claims
from tiphys_cluster.errors import NotRunningError
from tiphys_cluster.images.loading import load_images


@click.group("image")
def command() -> None:
    """Load container images into a cluster's nodes."""


@command.command("load")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@name_option
@run_root_option
def load(*, file: Path, name: str, run_root: Path) -> None:
    """Import the images in FILE (an OCI layout or `docker save` archive) into every node."""
    for image in run(_load(file.absolute(), name, run_root)):
        click.echo(f"loaded {image}")


async def _load(file: Path, name: str, run_root: Path) -> list[str]:
    layout = layout_for(name, None, run_root)
    claim = read_claims(run_root).get(name)
    if claim is None:
        raise NotRunningError(f"cluster {name!r} is not running", f"Start it: tiphys up --name {name}")
    return await load_images(layout.images, map(layout.node, claim.settings.nodes), file)
