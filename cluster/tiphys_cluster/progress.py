"""How a long action tells what it is doing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told about each step as it begins; never blocks."""

    def step(self, text: str) -> None:
        """A step begins; the one before it is done."""

    def note(self, text: str) -> None:
        """Something worth knowing that is no step."""


class Silent:
    """Tells nobody."""

    __slots__ = ()

    def step(self, text: str) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""
