"""The node's status as it is kept true, whoever else writes to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.unit.kubelet.volumes.csi_world import Told
from tiphys.api.core.v1.node_pb2 import Node
from tiphys_apimachinery.meta import find_condition
from tiphys_client.fake import FakeClient
from tiphys_component.clock import FakeClock
from tiphys_cri.fake import FakeImages, FakeRuntime
from tiphys_kubelet.machine import Machine
from tiphys_kubelet.node_status import NodeIdentity, NodeReporter

MACHINE = Machine(2, 2**30, 2**30, "m", "s", "b", "6.1", "Debian", "amd64")


@dataclass(slots=True)
class Reporting:
    """A reporter at work."""

    client: FakeClient
    clock: FakeClock
    reporter: NodeReporter

    def stored(self) -> Node:
        """The node as the API has it."""
        return self.client.stored(Node, "n")

    def condition(self, kind: str) -> Any:
        """One of its conditions."""
        return find_condition(self.stored().status.conditions, kind)

    async def write(self, node: Any) -> None:
        """Somebody else writes the status, and the kubelet hears of it."""
        self.reporter.observed(await self.client.update_status(node))
        for _ in range(20):
            await self.clock.settle()


@asynccontextmanager
async def reporting() -> AsyncIterator[Reporting]:
    clock = FakeClock()
    client = FakeClient(clock)
    reporter = NodeReporter(
        NodeIdentity("n", ["10.0.0.1"], 10250),
        MACHINE,
        client=client,
        runtime=FakeRuntime(clock),
        images=FakeImages(),
        clock=clock,
        events=Told(),
        relisted_at=clock.monotonic,
    )
    task = asyncio.create_task(reporter.run(), name="reporter")
    for _ in range(20):
        await clock.settle()
    try:
        yield Reporting(client, clock, reporter)
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("kind", ["Ready", "MemoryPressure"])
async def test_B24_a_node_that_was_given_up_says_at_once_that_it_is_back(kind: str) -> None:
    async with reporting() as node:
        before = node.condition(kind).status
        given_up = node.stored()
        for condition in given_up.status.conditions:
            condition.status, condition.reason = "Unknown", "NodeStatusUnknown"
        await node.write(given_up)
        assert (node.condition(kind).status, node.condition(kind).reason) != ("Unknown", "NodeStatusUnknown")
        assert node.condition(kind).status == before


async def test_B24_conditions_of_others_are_theirs() -> None:
    async with reporting() as node:
        told = node.stored()
        told.status.conditions.add(type="NetworkUnavailable", status="Unknown")
        calls = len(node.client.writes())
        await node.write(told)
        assert node.condition("NetworkUnavailable").status == "Unknown"
        # That one write.
        assert len(node.client.writes()) == calls + 1
