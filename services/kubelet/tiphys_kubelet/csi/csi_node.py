"""The CSINode object: which drivers run on the node, who the node is to each, and where it lies in their topology.

Written whenever a driver comes or goes. What an earlier life of the kubelet wrote stays for a while: its drivers need a
moment to register again, and a driver that seems gone would keep pods from being scheduled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.storage.v1.storage_pb2 import CSINode, CSINodeDriver
from tiphys_apimachinery.errors import AlreadyExists, APIError, Conflict, NotFound
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_kubelet.api import ApiClient
from tiphys_kubelet.csi.drivers import NodeFacts

NODE_ID_ANNOTATION = "csi.volume.kubernetes.io/nodeid"
FORGET_AFTER_S = 10.0
_TRIES = 5


def csi_node(node: Node, previous: CSINode | None, drivers: Mapping[str, NodeFacts], gone: frozenset[str]) -> CSINode:
    """The object as it should be: `drivers`, and those of before that are not known to be gone. Pure."""
    wanted = CSINode()
    if previous is not None:
        wanted.CopyFrom(previous)
    wanted.metadata.name = node.metadata.name
    if not any(owner.uid == node.metadata.uid for owner in wanted.metadata.ownerReferences):
        del wanted.metadata.ownerReferences[:]
        wanted.metadata.ownerReferences.add(
            apiVersion="v1", kind="Node", name=node.metadata.name, uid=node.metadata.uid
        )
    kept = [d for d in wanted.spec.drivers if d.name not in drivers and d.name not in gone]
    entries = [*kept, *(_entry(name, facts) for name, facts in drivers.items())]
    wanted.spec.ClearField("drivers")
    wanted.spec.drivers.extend(sorted(entries, key=lambda entry: entry.name))
    return wanted


def _entry(name: str, facts: NodeFacts) -> CSINodeDriver:
    entry = CSINodeDriver(name=name, nodeID=facts.node_id, topologyKeys=sorted(facts.segments))
    if facts.max_volumes:
        entry.allocatable.count = facts.max_volumes
    return entry


def node_change(node: Node, drivers: Mapping[str, NodeFacts], gone: frozenset[str]) -> dict[str, Any]:
    """What a merge must change in the node's own object; empty if nothing. Pure.

    Raises ValueError where a driver says that the node lies elsewhere than its label says. Labels stay when a driver
    goes: volumes are bound to nodes by them, and a driver that starts anew must not make them unreachable meanwhile.
    """
    labels = {key: value for facts in drivers.values() for key, value in facts.segments.items()}
    for key, value in labels.items():
        existing = node.metadata.labels.get(key)
        if existing is not None and existing != value:
            raise ValueError(
                f'detected topology value collision: driver reported "{key}":"{value}" '
                f'but existing label is "{key}":"{existing}"'
            )
    metadata: dict[str, Any] = {}
    fresh = {key: value for key, value in labels.items() if key not in node.metadata.labels}
    if fresh:
        metadata["labels"] = fresh
    old = _node_ids(node)
    ids = {name: value for name, value in old.items() if name not in gone}
    ids |= {name: facts.node_id for name, facts in drivers.items()}
    if ids != old:
        text = orjson.dumps(ids, option=orjson.OPT_SORT_KEYS).decode() if ids else None
        metadata["annotations"] = {NODE_ID_ANNOTATION: text}
    return {"metadata": metadata} if metadata else {}


def _node_ids(node: Node) -> dict[str, str]:
    try:
        found = orjson.loads(node.metadata.annotations.get(NODE_ID_ANNOTATION, "{}"))
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


class CsiNodeWriter:
    """Keeps the object true; `run` for ever."""

    def __init__(self, node_name: str, client: ApiClient, clock: Clock) -> None:
        self._node_name = node_name
        self._client = client
        self._clock = clock
        self._drivers: dict[str, NodeFacts] = {}
        self._gone: set[str] = set()
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()
        self._log = get_logger("kubelet.csi", node=node_name)

    async def run(self) -> None:
        """Writes what could not be written at once, and in time forgets drivers that did not come back."""
        await self._until_written()
        await self._clock.sleep(FORGET_AFTER_S)
        await self._forget_strangers()
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._until_written()

    async def add(self, name: str, facts: NodeFacts) -> None:
        """A driver has come; returns when that is written. Raises APIError, or ValueError for what can't be."""
        before = self._drivers.get(name)
        self._drivers[name] = facts
        self._gone.discard(name)
        try:
            await self._write()
        except ValueError:
            # Its topology is refused, so it is as if it had not come.
            del self._drivers[name]
            if before is not None:
                self._drivers[name] = before
            raise

    def remove(self, name: str) -> None:
        """A driver is gone."""
        self._drivers.pop(name, None)
        self._gone.add(name)
        self._wake.set()

    async def _until_written(self) -> None:
        backoff = Backoff(0.2, 10.0)
        while True:
            try:
                await self._write()
                return
            except (APIError, ValueError) as err:
                self._log.debug("CSINode can't be written, will retry", err=str(err))
            await self._clock.sleep(backoff.next())

    async def _forget_strangers(self) -> None:
        try:
            previous = await self._client.get(CSINode, self._node_name)
        except APIError:
            # Written anew with the next driver; a stranger in it does little harm.
            return
        strangers = {driver.name for driver in previous.spec.drivers} - self._drivers.keys()
        if strangers:
            self._log.info("drivers have not come back", drivers=sorted(strangers))
            self._gone |= strangers
            await self._until_written()

    async def _write(self) -> None:
        """Raises APIError or ValueError."""
        async with self._lock:
            for attempt in range(_TRIES):
                try:
                    await self._write_once()
                    return
                except (Conflict, AlreadyExists):
                    if attempt == _TRIES - 1:
                        raise

    async def _write_once(self) -> None:
        node = await self._client.get(Node, self._node_name)
        gone = frozenset(self._gone)
        change = node_change(node, self._drivers, gone)
        if change:
            await self._client.patch(Node, self._node_name, "", change, type="merge")
        try:
            previous = await self._client.get(CSINode, self._node_name)
        except NotFound:
            await self._client.create(csi_node(node, None, self._drivers, gone))
            return
        wanted = csi_node(node, previous, self._drivers, gone)
        if wanted != previous:
            await self._client.update(wanted)
