"""A figure and what it must reach, and the table that is printed of them."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    at_most, or for a rate at_least, is what the issue requires, None where a figure is only told; note says what
    belongs to it, as the rate that was reached or why nothing was measured. measured is None for what was skipped.
    """

    name: str
    measured: float | None
    unit: str
    at_most: float | None = None
    note: str = ""
    at_least: float | None = None

    @property
    def verdict(self) -> str:
        """ok, short, skipped, or nothing where nothing is required."""
        if self.measured is None:
            return "skipped"
        if self.at_least is not None:
            return "ok" if self.measured >= self.at_least else "short"
        if self.at_most is None:
            return ""
        return "ok" if self.measured <= self.at_most else "short"

    def line(self) -> str:
        """The figure as a line of the table."""
        required = "" if self.at_most is None else f"<= {number(self.at_most)} {self.unit}"
        if self.at_least is not None:
            required = f">= {number(self.at_least)} {self.unit}"
        measured = "-" if self.measured is None else f"{number(self.measured)} {self.unit}"
        return f"{self.name:<58} {required:>14} {measured:>14}  {self.verdict:<7} {self.note}".rstrip()


def skipped(name: str, why: str, unit: str = "", at_most: float | None = None) -> Figure:
    """A figure that could not be measured here."""
    return Figure(name, None, unit, at_most, why)


def number(value: float) -> str:
    """Three digits that mean something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def print_heading() -> None:
    """The head of the table, and which Python is measured: how it was compiled is worth a tenth."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    sys.stdout.write(f"Python {platform.python_version()} of {os.path.realpath(base)}\n")
    sys.stdout.write(f"{'figure':<58} {'required':>14} {'measured':>14}\n")
    sys.stdout.flush()


def print_figures(figures: Sequence[Figure]) -> None:
    """Write lines of the table as they come."""
    for figure in figures:
        sys.stdout.write(figure.line() + "\n")
    sys.stdout.flush()


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]
