"""How often kubelets are asked, and what comes of those that do not answer."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from tiphys_apimachinery.errors import ServiceUnavailable
from tiphys_apiserver.metrics_api.kubelets import FRESH_S, Kubelets
from tiphys_apiserver.rest.fetch import Document
from tiphys_component.clock import FakeClock

CPU = {"time": "2026-01-02T03:04:05Z", "usageNanoCores": 5}
SUMMARY = orjson.dumps({"node": {"cpu": CPU, "memory": {"workingSetBytes": 1}}, "pods": []})


class Nodes:
    """Kubelets that answer, but for those named."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken: dict[str, Exception | Document] = {}

    async def ask(self, node: str, path: str) -> Document:
        """A summary."""
        assert path.startswith("/stats/summary")
        self.asked.append(node)
        await asyncio.sleep(0)
        found = self.broken.get(node, Document(200, "application/json", SUMMARY))
        if isinstance(found, Exception):
            raise found
        return found


async def test_each_is_asked_once_in_a_while_and_only_when_somebody_wants_to_know() -> None:
    clock, nodes = FakeClock(), Nodes()
    kubelets = Kubelets(nodes.ask, clock)
    assert set(await kubelets.figures(["a", "b", "a"])) == {"a", "b"}
    await kubelets.figures(["a"])
    assert sorted(nodes.asked) == ["a", "b"]
    await clock.run_for(FRESH_S)
    await kubelets.figures(["a"])
    assert sorted(nodes.asked) == ["a", "a", "b"]


async def test_askers_at_once_share_an_answer() -> None:
    nodes = Nodes()
    kubelets = Kubelets(nodes.ask, FakeClock())
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(kubelets.figures(["a", "b"])) for _ in range(5)]
    assert sorted(nodes.asked) == ["a", "b"]
    assert all(task.result()["b"].node is not None for task in tasks)


@pytest.mark.parametrize(
    "trouble",
    [
        ServiceUnavailable("no"),
        ConnectionResetError(),
        asyncio.IncompleteReadError(b"", 5),
        Document(200, "text/html", b"<html>"),
        Document(403, "text/plain", b"Forbidden"),
    ],
    ids=["dialling", "reset", "broken-off", "nonsense", "forbidden"],
)
async def test_node_that_does_not_tell_holds_nobody_back(trouble: Exception | Document) -> None:
    clock, nodes = FakeClock(), Nodes()
    nodes.broken["bad"] = trouble
    kubelets = Kubelets(nodes.ask, clock)
    found = await kubelets.figures(["bad", "good"])
    assert found["bad"].node is None
    assert found["good"].node is not None
    # It is not asked again at once; later it is.
    await kubelets.figures(["bad"])
    assert nodes.asked.count("bad") == 1
    await clock.run_for(FRESH_S)
    del nodes.broken["bad"]
    assert (await kubelets.figures(["bad"]))["bad"].node is not None


async def test_nodes_that_are_gone_are_forgotten() -> None:
    nodes = Nodes()
    kubelets = Kubelets(nodes.ask, FakeClock())
    await kubelets.figures(["a", "b"])
    kubelets.keep(["b"])
    await kubelets.figures(["a", "b"])
    assert sorted(nodes.asked) == ["a", "a", "b"]
