"""What every pod of the node has been given, what it waits for, and what its status says of that.

Owned by the event loop: a decision is taken in one go, so that no two pods are given the same room. A grant is on the
disk before anything is done about it; the kubelet that comes after a crash reads it there, sees what the kernel has,
and does the rest.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tiphys.api.core.v1.container_pb2 import ResourceRequirements
from tiphys.api.core.v1.pod_pb2 import Pod, PodCondition
from tiphys_apimachinery.codec.json_codec import to_json
from tiphys_apimachinery.pod_resources import pod_amounts
from tiphys_apimachinery.quantity import Quantity
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.proc import to_thread
from tiphys_kubelet.api import EventSink
from tiphys_kubelet.resizing import allocation as rules
from tiphys_kubelet.resizing.allocation import Refusal
from tiphys_kubelet.resizing.metrics import ResizeMetrics
from tiphys_kubelet.resources.checkpoint import replace_file

PENDING, IN_PROGRESS = "PodResizePending", "PodResizeInProgress"
CONDITIONS = frozenset({PENDING, IN_PROGRESS})
_ENDED = ("Succeeded", "Failed")
# Room may also come by ways that nobody tells of.
RETRY_S = 180.0


@dataclass(slots=True)
class _Entry:
    # The pod as the API wants it.
    desired: Pod
    allocated: dict[str, ResourceRequirements]
    effective: Pod
    refusal: Refusal | None = None
    refused_at: float = 0.0
    # The generation whose resources are being given to the containers; None when they have them.
    doing: int | None = None
    trouble: str = ""
    ended: bool = False
    # Granted after the pod had begun: to be kept on the disk.
    granted: bool = False


@dataclass(slots=True)
class Resizes:
    """Allocations by pod uid; on_grant is told the uid of a pod that got what it waited for."""

    directory: Path
    allocatable: Mapping[str, Quantity]
    clock: Clock
    events: EventSink
    metrics: ResizeMetrics
    on_grant: Callable[[str], None] = lambda uid: None
    _entries: dict[str, _Entry] = field(default_factory=dict)
    _kept: dict[str, dict[str, ResourceRequirements]] = field(default_factory=dict)
    _dirty: bool = False
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.metrics.follow(self.counts)

    async def load(self) -> None:
        """Reads what an earlier life had granted; a file that can't be read is told of and left out."""
        path = self.directory / rules.FILE_NAME
        try:
            self._kept = rules.decode(await to_thread(path.read_bytes))
        except FileNotFoundError:
            return
        except (OSError, rules.CorruptState) as err:
            get_logger("kubelet.resize").error("allocations can't be read", path=str(path), err=str(err))

    async def run(self) -> None:
        """Tries again for ever what waits for room."""
        while True:
            await self.clock.sleep(RETRY_S)
            self._retry("periodic_retry")

    def accept(self, pod: Pod) -> Pod:
        """A pod of this node as the API has it now; as it is to run, with what is set aside for it. Read only."""
        uid = pod.metadata.uid
        entry = self._entries.get(uid)
        if entry is None:
            allocated = self._kept.get(uid) or rules.reported_allocation(pod) or rules.allocation_of(pod)
            before = rules.with_allocation(pod, allocated)
            entry = self._entries[uid] = _Entry(pod, allocated, before, granted=uid in self._kept)
            entry.ended = pod.status.phase in _ENDED
            changed = True
        else:
            changed = pod.metadata.generation != entry.desired.metadata.generation or pod.spec != entry.desired.spec
        entry.desired = pod
        if changed:
            self._decide(entry, "pod_updated")
        entry.effective = rules.with_allocation(pod, entry.allocated)
        return entry.effective

    def effective(self, uid: str) -> Pod | None:
        """A pod as it is to run."""
        entry = self._entries.get(uid)
        return entry.effective if entry is not None else None

    def release(self, uid: str) -> None:
        """The pod has ended: what it had is free for others."""
        entry = self._entries.get(uid)
        if entry is None or entry.ended:
            return
        entry.ended, entry.refusal, entry.doing = True, None, None
        self._retry("pods_removed")

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self.release(uid)
        entry = self._entries.pop(uid, None)
        self._dirty = self._dirty or (entry is not None and entry.granted)
        self._kept.pop(uid, None)

    def keep_only(self, uids: Collection[str]) -> None:
        """What was granted in an earlier life to pods that the API has no more is forgotten."""
        for uid in self._kept.keys() - set(uids) - self._entries.keys():
            del self._kept[uid]
            self._dirty = True

    async def save(self) -> None:
        """Returns when all that was granted is on the disk. Raises OSError."""
        async with self._writing:
            if not self._dirty:
                return
            self._dirty = False
            granted = {uid: entry.allocated for uid, entry in self._entries.items() if entry.granted}
            # Of pods that the API has not told of yet in this life.
            content = rules.encode({**self._kept, **granted})
            try:
                await to_thread(replace_file, self.directory / rules.FILE_NAME, content)
            except OSError:
                self._dirty = True
                raise

    def begun(self, uid: str) -> None:
        """Something is left to be done for the pod."""
        entry = self._entries.get(uid)
        if entry is not None and entry.doing is None and not entry.ended:
            entry.doing = entry.desired.metadata.generation

    def failed(self, uid: str, message: str) -> None:
        """What is being done does not succeed for now."""
        entry = self._entries.get(uid)
        if entry is None or entry.trouble == message:
            return
        entry.trouble = message
        self._tell(entry, "Warning", "ResizeError", word="error", error=message)

    def finished(self, uid: str) -> None:
        """The containers have what is set aside for them."""
        entry = self._entries.get(uid)
        if entry is None or entry.doing is None:
            return
        self._tell(entry, "Normal", "ResizeCompleted", word="completed", generation=entry.doing)
        entry.doing, entry.trouble = None, ""

    def conditions(self, uid: str) -> tuple[PodCondition, ...]:
        """What the pod's status says of its resize."""
        entry = self._entries.get(uid)
        if entry is None or entry.ended:
            return ()
        found = []
        if entry.refusal is not None:
            told = PodCondition(type=PENDING, status="True", reason=entry.refusal.reason, message=entry.refusal.message)
            told.observedGeneration = entry.desired.metadata.generation
            found.append(told)
        if entry.doing is not None:
            told = PodCondition(type=IN_PROGRESS, status="True")
            if entry.trouble:
                told.reason, told.message = "Error", entry.trouble
            told.observedGeneration = entry.doing
            found.append(told)
        return tuple(found)

    def counts(self) -> Mapping[str, int]:
        """How many pods wait (deferred, infeasible) and how many are being resized (in_progress)."""
        entries = self._entries.values()
        reasons = [entry.refusal.reason.lower() for entry in entries if entry.refusal is not None]
        doing = sum(entry.doing is not None for entry in entries)
        return {"deferred": reasons.count("deferred"), "infeasible": reasons.count("infeasible"), "in_progress": doing}

    def _decide(self, entry: _Entry, trigger: str) -> bool:
        """Whether the pod was given something else than it had."""
        if entry.ended or not rules.is_changed(entry.desired, entry.allocated):
            entry.refusal = None
            return False
        waited = entry.refusal is not None and entry.refusal.reason == rules.DEFERRED
        if entry.desired.metadata.HasField("deletionTimestamp"):
            return False
        if trigger == "pod_updated":
            self.metrics.requested(entry.desired, entry.allocated)
        others = [
            pod_amounts(other.effective.spec, "requests")
            for other in self._entries.values()
            if other is not entry and not other.ended
        ]
        refusal = rules.judge(entry.desired, others, self.allocatable)
        if refusal is not None:
            self._refuse(entry, refusal)
            return False
        if waited:
            self.metrics.deferred_accepted.labels(trigger).inc()
        had = pod_amounts(entry.effective.spec, "requests")
        entry.allocated = rules.allocation_of(entry.desired)
        entry.effective = entry.desired
        entry.refusal, entry.trouble = None, ""
        entry.doing, entry.granted, self._dirty = entry.desired.metadata.generation, True, True
        self._tell(entry, "Normal", "ResizeStarted", word="started")
        has = pod_amounts(entry.effective.spec, "requests")
        if rules.is_raised(has, had):
            # It gave something back.
            self._retry("pod_resized")
        return True

    def _refuse(self, entry: _Entry, refusal: Refusal) -> None:
        if entry.refusal == refusal:
            return
        if entry.refusal is None or entry.refusal.reason != refusal.reason:
            entry.refused_at = self.clock.monotonic()
        entry.refusal = refusal
        if refusal.reason == rules.INFEASIBLE:
            self.metrics.infeasible.labels(refusal.detail).inc()
        self._tell(entry, "Warning", f"Resize{refusal.reason}", word=refusal.reason, error=refusal.message)

    def _retry(self, trigger: str) -> None:
        def order(entry: _Entry) -> tuple[bool, int, bool, float]:
            before, after = (pod_amounts(pod.spec, "requests") for pod in (entry.effective, entry.desired))
            return rules.rank(entry.desired, raised=rules.is_raised(before, after), since=entry.refused_at)

        waiting = [e for e in self._entries.values() if e.refusal is not None and e.refusal.reason == rules.DEFERRED]
        for entry in sorted(waiting, key=order):
            # A grant before it in the order may have tried it already.
            if entry.refusal is not None and self._decide(entry, trigger):
                self.on_grant(entry.desired.metadata.uid)

    def _tell(
        self, entry: _Entry, kind: str, reason: str, *, word: str, error: str = "", generation: int | None = None
    ) -> None:
        """An event; word is how far the resize is."""
        containers = [
            {"name": c.name, "resources": to_json(c.resources, with_type_meta=False)}
            for c in rules.resizable(entry.desired)
        ]
        told: dict[str, object] = {
            "containers": containers,
            "generation": generation if generation is not None else entry.desired.metadata.generation,
        }
        if error:
            told["error"] = error
        text = json.dumps(told, separators=(",", ":"), sort_keys=True)
        self.events.event(entry.desired, kind, reason, f"Pod resize {word}: {text}")
