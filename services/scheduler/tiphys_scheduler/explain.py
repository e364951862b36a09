"""Why a pod goes where it goes, or nowhere: verdicts by classes of nodes, and the least change that would make it fit.

Everything is worked out over columns, so that 5,000 nodes take some milliseconds. Nothing is kept and nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import ALL_ROWS, Columns, Mask
from tiphys_scheduler.framework.interface import CountingPlugin, FilterPlugin
from tiphys_scheduler.framework.runtime import Framework, Placement
from tiphys_scheduler.framework.status import FitError
from tiphys_scheduler.plugins.default_preemption import DefaultPreemption
from tiphys_scheduler.pod_info import CPU, PODS, PodInfo

_FIT = "NodeResourcesFit"
_SAMPLE = 5
_MOST_CLASSES = 100


@dataclass(frozen=True, slots=True)
class NodeClass:
    """Nodes of which all plugins say the same: the reasons by plugin, empty where they fit.

    scores are those of the first of them, weighted, by plugin.
    """

    count: int
    nodes: tuple[str, ...]
    refusals: Mapping[str, tuple[str, ...]]
    scores: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change after which the pod would fit on so many nodes, of which one is named."""

    text: str
    nodes: int
    example: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """message is that of the pod's condition, empty where some node fits; best is the node it would get."""

    message: str
    best: str
    score: int
    classes: tuple[NodeClass, ...]
    remedies: tuple[Remedy, ...]


@dataclass(frozen=True, slots=True)
class _Verdicts:
    """For each row a bit by (plugin, reason) that refuses it."""

    keys: tuple[tuple[str, str], ...]
    bits: NDArray[np.uint64]


def explain(framework: Framework, pod: PodInfo, nodes: Columns) -> Explanation:
    """What would happen to the pod now."""
    found = framework.place(pod)
    if isinstance(found, FitError) and found.rejected_by:
        refusals = {found.rejected_by: (found.rejection,)}
        names = tuple(nodes.names[row] for row in np.flatnonzero(nodes.present)[:_SAMPLE].tolist())
        every = NodeClass(len(nodes), names, refusals)
        return Explanation(found.message, "", 0, (every,) if len(nodes) else (), ())
    verdicts = _verdicts(framework.profile.filters, pod, nodes)
    classes = _classes(framework, pod, nodes, verdicts)
    if isinstance(found, Placement):
        return Explanation("", found.node, found.score, classes, ())
    return Explanation(found.message, "", 0, classes, _remedies(pod, nodes, verdicts))


def _verdicts(filters: Iterable[FilterPlugin], pod: PodInfo, nodes: Columns) -> _Verdicts:
    keys: list[tuple[str, str]] = []
    bits = np.zeros(nodes.rows, np.uint64)

    def note(plugin: str, reason: str, mask: Mask) -> None:
        if mask.any() and len(keys) < 64:
            bits[mask] |= np.uint64(1 << len(keys))
            keys.append((plugin, reason))

    for plugin in filters:
        if not plugin.is_needed(pod, nodes):
            continue
        refused = nodes.present & ~plugin.filter(pod, nodes, ALL_ROWS)
        if not refused.any():
            continue
        if isinstance(plugin, CountingPlugin):
            for reason, mask in plugin.reason_masks(pod, nodes):
                note(plugin.name, reason, mask & refused)
        else:
            by_reason: dict[str, Mask] = {}
            for row in np.flatnonzero(refused).tolist():
                for reason in plugin.reasons(pod, nodes, row):
                    by_reason.setdefault(reason, np.zeros(nodes.rows, np.bool_))[row] = True
            for reason, mask in by_reason.items():
                note(plugin.name, reason, mask)
    return _Verdicts(tuple(keys), bits)


def _classes(framework: Framework, pod: PodInfo, nodes: Columns, verdicts: _Verdicts) -> tuple[NodeClass, ...]:
    """Those that fit first, then the larger."""
    rows = np.flatnonzero(nodes.present)
    codes, counts = np.unique(verdicts.bits[rows], return_counts=True)
    order = sorted(range(len(codes)), key=lambda i: (codes[i] != 0, -int(counts[i])))
    made = []
    for i in order[:_MOST_CLASSES]:
        members = rows[verdicts.bits[rows] == codes[i]]
        refusals: dict[str, tuple[str, ...]] = {}
        for bit, (plugin, reason) in enumerate(verdicts.keys):
            if int(codes[i]) >> bit & 1:
                refusals[plugin] = (*refusals.get(plugin, ()), reason)
        scores: Mapping[str, int] = {}
        if not refusals:
            scored = framework.candidates(pod)
            if not isinstance(scored, FitError):
                # The best first.
                members = scored[0][np.argsort(-scored[1], kind="stable")]
                scores = framework.scores_of(pod, int(members[0]))
        names = tuple(nodes.names[row] for row in members[:_SAMPLE].tolist())
        made.append(NodeClass(int(counts[i]), names, refusals, scores))
    return tuple(made)


def _remedies(pod: PodInfo, nodes: Columns, verdicts: _Verdicts) -> tuple[Remedy, ...]:
    """The changes that lift fewest plugins' refusals, those that open most nodes first."""
    rows = np.flatnonzero(nodes.present)
    if not len(rows):
        return ()
    masks: dict[str, int] = {}
    for bit, (plugin, _) in enumerate(verdicts.keys):
        masks[plugin] = masks.get(plugin, 0) | 1 << bit
    sets: dict[frozenset[str], list[int]] = {}
    codes, inverse = np.unique(verdicts.bits[rows], return_inverse=True)
    for index, code in enumerate(codes.tolist()):
        plugins = frozenset(plugin for plugin, mask in masks.items() if code & mask)
        if plugins:
            sets.setdefault(plugins, []).extend(rows[inverse == index].tolist())
    if not sets:
        return ()
    least = min(len(plugins) for plugins in sets)
    found = []
    for plugins, members in sets.items():
        if len(plugins) == least:
            ordered = [name for name in masks if name in plugins]
            example = _easiest(pod, nodes, members) if _FIT in plugins else members[0]
            texts = [
                _less(pod, nodes, example) if name == _FIT else _lift(name, nodes, example, verdicts)
                for name in ordered
            ]
            found.append(Remedy(" and ".join(texts), len(members), nodes.names[example]))
    return tuple(sorted(found, key=lambda remedy: (-remedy.nodes, remedy.text)))


def _easiest(pod: PodInfo, nodes: Columns, rows: Sequence[int]) -> int:
    """The row on which least of what is requested is missing, in proportion."""
    index = np.array(rows, np.intp)
    missing = np.zeros(len(index))
    for resource, value in pod.needs.requests:
        column = nodes.resource(resource)
        free = nodes.capacity[column, index] - nodes.requested[column, index]
        missing = np.maximum(missing, np.maximum(value - free, 0) / value)
    return int(index[int(missing.argmin())])


def _lift(plugin: str, nodes: Columns, row: int, verdicts: _Verdicts) -> str:
    if plugin == "TaintToleration":
        taints = sorted(taint for taint, mask in nodes.taints.items() if mask[row] and taint[2] != "PreferNoSchedule")
        return "tolerate " + ", ".join(f"{key}={value}:{effect}" for key, value, effect in taints)
    reasons = [
        reason
        for bit, (name, reason) in enumerate(verdicts.keys)
        if name == plugin and int(verdicts.bits[row]) >> bit & 1
    ]
    known = {
        "NodeUnschedulable": f"uncordon {nodes.names[row]}",
        "NodeAffinity": "drop the node selector or required node affinity",
        "NodePorts": "give up the host port, or end the pod that has it",
    }
    return known.get(plugin, f"lift {plugin}: {', '.join(reasons)}")


def _less(pod: PodInfo, nodes: Columns, row: int) -> str:
    parts = []
    for resource, value in pod.needs.requests:
        column = nodes.resource(resource)
        free = int(nodes.capacity[column, row]) - int(nodes.requested[column, row])
        if free >= value:
            continue
        if resource == PODS:
            parts.append("end a pod there")
        elif free > 0:
            parts.append(
                f"request at most {_amount(resource, free)} of {resource} instead of {_amount(resource, value)}"
            )
        else:
            parts.append(f"free {_amount(resource, value - free)} of {resource} there")
    return " and ".join(parts)


def _amount(resource: str, value: int) -> str:
    if resource == CPU:
        return str(value // 1000) if value % 1000 == 0 else f"{value}m"
    for unit, size in (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if value and value % size == 0:
            return f"{value // size}{unit}"
    return str(value)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What would become of one pod of a plan: its node, or why none; victims are who would have to go for it."""

    pod: PodInfo
    node: str = ""
    score: int = 0
    message: str = ""
    victims: tuple[str, ...] = ()


def what_if(cache: Cache, framework: Framework, pods: Sequence[PodInfo]) -> list[Outcome]:
    """Places pods that do not exist yet, in the order of the queue, each beside those before it; then forgets them.

    Keys of the pods must be unlike those of pods that are placed.
    """
    profile = framework.profile
    order = sorted(range(len(pods)), key=lambda i: profile.queue_sort.sort_key(pods[i], i))
    outcomes: dict[int, Outcome] = {}
    assumed: list[PodInfo] = []
    try:
        for i in order:
            pod = pods[i]
            plugin, held = framework.admit(pod)
            if plugin:
                outcomes[i] = Outcome(pod, message=held)
                continue
            found = framework.place(pod)
            if isinstance(found, Placement):
                cache.assume(pod, found.node)
                assumed.append(pod)
                outcomes[i] = Outcome(pod, found.node, found.score)
            else:
                outcomes[i] = Outcome(pod, message=found.message, victims=_victims(framework, pod))
    finally:
        for pod in reversed(assumed):
            cache.forget(pod)
    return [outcomes[i] for i in range(len(pods))]


def _victims(framework: Framework, pod: PodInfo) -> tuple[str, ...]:
    for plugin in framework.profile.post_filters:
        if isinstance(plugin, DefaultPreemption) and pod.preemption_policy != "Never":
            found = plugin.candidate(pod)
            if found is not None:
                return tuple(victim.key for victim in found[1].pods)
    return ()
