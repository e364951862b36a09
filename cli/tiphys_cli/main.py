"""The command line: one module per verb, loaded when it is called."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import NoReturn

import click

# Verb, module, one line of help. A verb's module is imported only for its own call or help.
_VERBS = {
    "up": ("tiphys_cli.up", "Start a cluster, or put back what a running one misses."),
    "down": ("tiphys_cli.down", "Stop a cluster and take everything of it off this machine."),
    "status": ("tiphys_cli.status", "Show a cluster's processes and nodes."),
    "kubeconfig": ("tiphys_cli.kubeconfig", "Print where a cluster's kubeconfig is, or what is in it."),
    "node": ("tiphys_cli.node", "Add nodes to a running cluster, and remove them."),
    "image": ("tiphys_cli.image", "Load container images into a cluster's nodes."),
    "get": ("tiphys_cli.get", "Show objects as they were at a past moment."),
    "explain": ("tiphys_cli.explain", "Say why a pod goes where it goes, and what would make it fit."),
    "what-if": ("tiphys_cli.what_if", "Say where pods that do not exist yet would go."),
    "plugin": ("tiphys_cli.plugin", "Test plugins against their contract."),
}


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(_VERBS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, text) in _VERBS.items()])


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tiphys-cli", prog_name="tiphys")
def tiphys() -> None:
    """A container orchestrator that speaks Kubernetes. Everything that is not here is kubectl's."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and end the process with its exit code."""
    # Debian leaves these out of a user's PATH, and of root's after a plain su; ip, nft and runc are there.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    tiphys.main(args=None if argv is None else list(argv), prog_name="tiphys")


if __name__ == "__main__":
    main()
