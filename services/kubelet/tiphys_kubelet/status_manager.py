"""Writes pod statuses when they change, at once, as patches.

A status replaces the one before it that has not been written yet, so a slow API server delays news and never orders it
wrongly. One write of a pod is under way at a time; different pods are written side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tiphys.api.core.v1.pod_pb2 import Pod, PodStatus
from tiphys_apimachinery.codec.json_codec import to_json
from tiphys_apimachinery.errors import APIError, Conflict, NotFound
from tiphys_apimachinery.meta import find_condition, resource_version
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_kubelet.api import ApiClient
from tiphys_kubelet.resizing.resizes import CONDITIONS

WRITERS = 8
# Conditions that the node controller takes from the pods of a node that it has not heard of for too long.
_OURS = frozenset({"Ready", "ContainersReady"})
# Lists that the API merges by key, so that an element that is gone must be said to be.
_REPLACED_LISTS = ("podIPs", "hostIPs")


@dataclass(slots=True)
class _Entry:
    namespace: str
    name: str
    wanted: PodStatus
    written: PodStatus
    # That of our last write: what is newer has been written by somebody else.
    version: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    queued: bool = False


class StatusManager:
    """Statuses by pod uid; `run` must be running for anything to be written."""

    def __init__(self, client: ApiClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._log = get_logger("kubelet.status")
        self._entries: dict[str, _Entry] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        # Told each pod as it is stored once its status was written, and the status before.
        self.on_written: Callable[[Pod, PodStatus], None] = _unheard

    async def run(self) -> None:
        """Writes for ever."""
        async with asyncio.TaskGroup() as group:
            for number in range(WRITERS):
                group.create_task(self._write_for_ever(), name=f"status writer {number}")

    def get(self, uid: str) -> PodStatus | None:
        """The newest status of a pod, written or not; read only."""
        entry = self._entries.get(uid)
        return entry.wanted if entry is not None else None

    def set(self, pod: Pod, status: PodStatus) -> None:
        """Makes this the pod's status. Does not wait."""
        uid = pod.metadata.uid
        entry = self._entries.get(uid)
        if entry is None:
            entry = _Entry(pod.metadata.namespace, pod.metadata.name, status, _copy(pod.status))
            self._entries[uid] = entry
        entry.wanted = status
        if not entry.queued and resource_version(pod) > entry.version:
            entry.written = overruled(entry.written, pod.status) or entry.written
        if status != entry.written and not entry.queued:
            entry.queued = True
            entry.idle.clear()
            self._queue.put_nowait(uid)
        elif not entry.queued:
            entry.idle.set()

    async def flush(self, uid: str) -> None:
        """Returns when the newest status of a pod has been written, or can't be any more."""
        entry = self._entries.get(uid)
        if entry is not None:
            await entry.idle.wait()

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self._entries.pop(uid, None)

    async def _write_for_ever(self) -> None:
        while True:
            uid = await self._queue.get()
            entry = self._entries.get(uid)
            if entry is not None:
                await self._write(uid, entry)

    async def _write(self, uid: str, entry: _Entry) -> None:
        backoff = Backoff(0.2, 10.0)
        while self._entries.get(uid) is entry and entry.wanted != entry.written:
            status = entry.wanted
            change = status_patch(entry.written, status)
            if not change:
                entry.written = status
                continue
            patch = {"metadata": {"uid": uid}, "status": change}
            try:
                stored = await self._client.patch(
                    Pod, entry.name, entry.namespace, patch, type="strategic", subresource="status"
                )
            except (NotFound, Conflict):
                # Gone, or another pod of the same name: its uid in the patch makes the server refuse.
                break
            except APIError as err:
                self._log.warning("pod status can't be written", pod=f"{entry.namespace}/{entry.name}", err=err.message)
                await self._clock.sleep(backoff.next())
                continue
            self.on_written(stored, entry.written)
            entry.written = status
            entry.version = resource_version(stored)
        entry.queued = False
        entry.idle.set()


def overruled(written: PodStatus, seen: PodStatus) -> PodStatus | None:
    """What we wrote, with those of our conditions that somebody else has written over; None where none was. Pure."""
    made: PodStatus | None = None
    for kind in _OURS:
        mine, theirs = find_condition(written.conditions, kind), find_condition(seen.conditions, kind)
        if mine is None or theirs is None or mine.status == theirs.status:
            continue
        made = made or _copy(written)
        changed: Any = find_condition(made.conditions, kind)
        changed.CopyFrom(theirs)
    return made


def status_patch(before: PodStatus, after: PodStatus) -> dict[str, Any]:
    """What a strategic merge must be given to turn one status into the other. Pure."""
    old = to_json(before, with_type_meta=False)
    new = to_json(after, with_type_meta=False)
    patch: dict[str, Any] = {key: value for key, value in new.items() if old.get(key) != value}
    patch |= dict.fromkeys(old.keys() - new.keys())
    for key in _REPLACED_LISTS:
        if patch.get(key) and old.get(key):
            patch[key] = [{"$patch": "replace"}, *patch[key]]
    if "conditions" in patch:
        patch["conditions"] = _changed_conditions(old.get("conditions") or [], new["conditions"])
    return patch


def _changed_conditions(old: list[Mapping[str, Any]], new: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The conditions that differ; a reason that is gone is said to be gone, since conditions merge by type."""
    before = {condition["type"]: condition for condition in old}
    changed: list[Mapping[str, Any]] = []
    for condition in new:
        earlier = before.get(condition["type"], {})
        if earlier != condition:
            changed.append(dict.fromkeys(earlier.keys() - condition.keys()) | dict(condition))
    # Those of a resize go when it is over; all others stay once they are there.
    gone = CONDITIONS & (before.keys() - {condition["type"] for condition in new})
    return [*changed, *({"$patch": "delete", "type": kind} for kind in sorted(gone))]


def _copy(status: PodStatus) -> PodStatus:
    copy = PodStatus()
    copy.CopyFrom(status)
    return copy


def _unheard(_pod: Pod, _before: PodStatus) -> None:
    """Nobody counts."""
