"""Builds the controllers that the flags ask for and runs them, in one process, on shared informers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tiphys_component.app import StartupError, start_loop
from tiphys_component.clock_jumps import watch_clock_jumps
from tiphys_component.log import get_logger
from tiphys_controller_manager.dump import MOST, LoopState, state_of
from tiphys_controller_manager.frame import ControllerSpec, Loop, Parts

_ALL = "*"


def choose(specs: Sequence[ControllerSpec], wanted: Sequence[str]) -> list[ControllerSpec]:
    """The controllers that --controllers asks for, in the order of the registry.

    A name turns one on, -name turns it off, and '*' turns on those that are on by default. Raises StartupError for a
    name that nobody has.
    """
    known = {name: spec.name for spec in specs for name in (spec.name, *spec.aliases)}
    names = [item.removeprefix("-") for item in wanted]
    unknown = sorted(name for name in names if name != _ALL and name not in known)
    if unknown:
        raise StartupError(
            f"no controller is named {', '.join(unknown)}",
            f"give --controllers some of {', '.join(spec.name for spec in specs)}",
        )
    on = {known[name] for name in wanted if name in known}
    off = {known[name[1:]] for name in wanted if name.startswith("-")}
    return [
        spec for spec in specs if spec.name not in off and (spec.name in on or (_ALL in wanted and spec.on_by_default))
    ]


@dataclass(frozen=True, slots=True)
class ControllerState:
    """How one controller fares."""

    name: str
    enabled: bool
    running: bool = False
    queue_depth: int = 0
    delayed: int = 0
    reconciles: int = 0
    failures: int = 0
    last_error: str = ""
    last_error_key: str = ""


def shown(states: Iterable[ControllerState]) -> str:
    """The states as a page for people, one line a controller: + works, - should and does not, and those turned off."""
    lines = []
    for state in states:
        if not state.enabled:
            lines.append(f"[ ]{state.name} off")
            continue
        counts = f"queue={state.queue_depth} delayed={state.delayed} reconciles={state.reconciles}"
        line = f"[{'+' if state.running else '-'}]{state.name} {counts} failures={state.failures}"
        lines.append(f"{line} last_error={state.last_error_key}: {state.last_error}" if state.last_error else line)
    return "\n".join(lines) + "\n"


class Manager:
    """All controllers of one process. build() and then run() may be called once."""

    def __init__(self, specs: Sequence[ControllerSpec], parts: Parts) -> None:
        self._specs = tuple(specs)
        self._parts = parts
        self._chosen = choose(specs, parts.options.controllers)
        self._loops: dict[str, Loop] = {}
        self._log = get_logger("manager")

    def build(self) -> None:
        """Make the controllers; they ask for informers and events. Raises StartupError for flags that can't be."""
        self._loops = {spec.name: Loop(spec, self._parts) for spec in self._chosen}

    async def run(self) -> None:
        """Fill the informers, then reconcile until cancelled. The end of any controller is a failure of all."""
        loops = list(self._loops.values())
        async with asyncio.TaskGroup() as group:
            start_loop(group, self._parts.shared.run(), "informers")
            start_loop(group, watch_clock_jumps(self._parts.clock, self._hurry), "clock jumps")
            for loop in loops:
                start_loop(group, loop.run(), f"controller {loop.name}")
            self._log.info("started", controllers=[loop.name for loop in loops])

    def states(self) -> list[ControllerState]:
        """How each controller of the registry fares."""
        return [self._state(spec) for spec in self._specs]

    def trigger(self, controller: str, key: str) -> bool:
        """Queue a key; False when no such controller runs here."""
        loop = self._loops.get(controller)
        if loop is None:
            return False
        loop.trigger(key)
        return True

    def dump(self, controller: str, *, most: int = MOST) -> LoopState | None:
        """All that a controller knows; None when no such controller runs here."""
        loop = self._loops.get(controller)
        return state_of(loop, most=most) if loop is not None else None

    def _hurry(self, by_s: float) -> None:
        """Deadlines, back-offs and times to live were counted from a calendar that was wrong."""
        self._log.warning("the clock was set, all that waits is looked at again", by_s=round(by_s, 1))
        for loop in self._loops.values():
            loop.queue.hurry()

    def _state(self, spec: ControllerSpec) -> ControllerState:
        loop = self._loops.get(spec.name)
        enabled = spec in self._chosen
        if loop is None:
            return ControllerState(spec.name, enabled)
        report = loop.report
        return ControllerState(
            name=spec.name,
            enabled=enabled,
            running=report.is_running,
            queue_depth=len(loop.queue),
            delayed=loop.queue.delayed,
            reconciles=report.reconciles,
            failures=report.failures,
            last_error=report.last_error,
            last_error_key=report.last_error_key,
        )
