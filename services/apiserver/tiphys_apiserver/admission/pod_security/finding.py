"""What a check finds, and the parts of a pod that checks look at. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that is broken: its name in messages, and who breaks it how."""

    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod's metadata and spec, wherever they come from: a pod, or the template of a workload."""

    metadata: Any
    spec: Any

    @property
    def is_windows(self) -> bool:
        """Rules of Linux' kernel say nothing about it."""
        return bool(self.spec.HasField("os") and self.spec.os.name == "windows")

    def containers(self) -> Iterator[Any]:
        """All of them: init containers, containers, ephemeral ones."""
        yield from self.spec.initContainers
        yield from self.spec.containers
        for ephemeral in self.spec.ephemeralContainers:
            yield ephemeral.ephemeralContainerCommon


@dataclass(frozen=True, slots=True)
class Check:
    """One rule. since is the first version of the standard that has it, until the last; None is for ever.

    replaces is the rule of the level below that this one is stricter than.
    """

    run: Callable[[Pod], Finding | None]
    since: Version = (1, 0)
    until: Version | None = None
    replaces: Callable[[Pod], Finding | None] | None = None

    def applies(self, version: Version) -> bool:
        """Whether that version of the standard has the rule in this form."""
        return self.since <= version and (self.until is None or version <= self.until)


def named(kind: str, names: Iterable[str]) -> str:
    """`container "a"`, or `containers "a", "b"`."""
    listed = list(names)
    return f"{kind}{'s' if len(listed) > 1 else ''} " + ", ".join(f'"{name}"' for name in listed)


def quoted(values: Iterable[str]) -> str:
    """The values in quotes, without repeats."""
    return ", ".join(f'"{value}"' for value in dict.fromkeys(values))
