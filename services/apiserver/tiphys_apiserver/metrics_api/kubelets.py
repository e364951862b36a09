"""Asks kubelets for their summaries: only those that somebody wants to know of, each at most every few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from tiphys_apimachinery.errors import APIError
from tiphys_apiserver.metrics_api.figures import NodeFigures, read_summary
from tiphys_apiserver.rest.fetch import Document
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger

PATH = "/stats/summary?only_cpu_and_memory=true"
# Less than autoscalers wait between two looks, so that each look of theirs sees something new.
FRESH_S = 8.0
_AT_ONCE = 64
# A kubelet that was not asked for a while takes a second to see a rate.
_TIMEOUT_S = 5.0
_log = get_logger(__name__)

# GET of a path at the kubelet of a node. Raises APIError, OSError, IncompleteReadError and ValueError.
Ask = Callable[[str, str], Awaitable[Document]]


@dataclass(slots=True)
class _Known:
    """What one kubelet told; the lock is held while it is asked."""

    asked_s: float = float("-inf")
    figures: NodeFigures = field(default_factory=NodeFigures)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Kubelets:
    """The figures of nodes, and of the pods on them."""

    def __init__(self, ask: Ask, clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def figures(self, nodes: Iterable[str]) -> Mapping[str, NodeFigures]:
        """By node. Of a node whose kubelet does not answer there are none, and it is not asked again for a while."""
        names = dict.fromkeys(nodes)
        stale = [name for name in names if not self._is_fresh(name)]
        if len(stale) == 1:
            await self._renew(stale[0])
        elif stale:
            async with asyncio.TaskGroup() as group:
                for name in stale:
                    group.create_task(self._renew(name))
        return {name: self._known[name].figures for name in names}

    def keep(self, nodes: Iterable[str]) -> None:
        """Forget all nodes but these."""
        there = set(nodes)
        self._known = {name: known for name, known in self._known.items() if name in there or known.lock.locked()}

    def _is_fresh(self, name: str) -> bool:
        known = self._known.get(name)
        return known is not None and self._clock.monotonic() - known.asked_s < FRESH_S

    async def _renew(self, name: str) -> None:
        known = self._known.setdefault(name, _Known())
        async with known.lock:
            if self._is_fresh(name):
                return  # somebody else asked meanwhile
            async with self._slots:
                known.figures = await self._read(name)
            known.asked_s = self._clock.monotonic()

    async def _read(self, name: str) -> NodeFigures:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                document = await self._ask(name, PATH)
            if document.status != 200:
                raise ValueError(f"it answers {document.status}: {document.body[:200].decode(errors='replace')}")
            return read_summary(document.body)
        except (APIError, OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as err:
            _log.info("kubelet does not tell what is used", node=name, err=str(err) or type(err).__name__)
            return NodeFigures()
