"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tiphys_cluster.layout import HOMES, RUN

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_NAME = "default"


def name_option(function: F) -> F:
    """--name"""
    return click.option("--name", default=DEFAULT_NAME, show_default=True, help="Name of the cluster.")(function)


def home_option(function: F) -> F:
    """--home"""
    return click.option(
        "--home",
        type=click.Path(file_okay=False, path_type=Path),
        default=None,
        help=f"Directory that keeps the cluster's data, certificates and logs.  [default: {HOMES}/NAME]",
    )(function)


def run_root_option(function: F) -> F:
    """--run-root, for those who may not write to /run"""
    return click.option(
        "--run-root",
        type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
        default=RUN,
        hidden=True,
        help="Directory for sockets, process records and namespaces.",
    )(function)
