"""Leaves out what a library would import only because it is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def absent(package: str) -> Iterator[None]:
    """Inside the block a package that nobody has imported yet looks as if it were not installed.

    For imports at the head of a module only; the package can be imported afterwards as ever.
    """
    modules: dict[str, Any] = sys.modules
    if package in modules:
        yield
        return
    # What the import statement takes for "is not there".
    modules[package] = None
    try:
        yield
    finally:
        del modules[package]
