"""VolumeBinding: a pod goes where its volumes can be reached, or where they can be made.

A claim that waits for its first consumer is decided with the node: a volume that is there and reachable, else one to be
made. What was chosen is written before the pod is bound, by volume_binder.
Source: kubernetes pkg/scheduler/framework/plugins/volumebinding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tiphys.api.core.v1.scheduling_pb2 import NodeSelector
from tiphys.api.meta.v1.meta_pb2 import LabelSelector
from tiphys_apimachinery.persistent_volumes import ClaimView, ClassView, VolumeView
from tiphys_scheduler.columns import Amounts, Columns, Mask, Rows
from tiphys_scheduler.framework.interface import Change, Event
from tiphys_scheduler.plugins.node_affinity import match_label, match_term
from tiphys_scheduler.pod_info import PodInfo
from tiphys_scheduler.volumes import Decisions, Volumes

NODE_CONFLICT = "node(s) didn't match PersistentVolume's node affinity"
BIND_CONFLICT = "node(s) didn't find available persistent volumes to bind"
NO_SPACE = "node(s) did not have enough free storage"
VOLUME_GONE = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
UNBOUND_IMMEDIATE = "pod has unbound immediate PersistentVolumeClaims"

_TO_MAKE = -1
_NOTHING = -2
# A volume could be made, if there were room for it.
_NO_ROOM = -3


@dataclass(frozen=True, slots=True)
class _Choice:
    """For each row the index of the volume that a claim takes there, or _TO_MAKE, _NOTHING or _NO_ROOM."""

    claim: ClaimView
    volumes: list[VolumeView]
    by_row: Amounts


@dataclass(frozen=True, slots=True)
class _Judgement:
    is_volume_gone: bool
    reachable: Mask
    choices: list[_Choice]

    def passed(self) -> Mask:
        """Rows that take the pod's volumes."""
        found = self.reachable.copy()
        for choice in self.choices:
            found &= choice.by_row > _NOTHING
        return found & (not self.is_volume_gone)


class VolumeBinding:
    """Refuses pods whose claims are not ready, filters nodes, and says what to write for the node that is taken."""

    name = "VolumeBinding"
    events = frozenset(
        {
            Event.NODE_ADDED,
            Event.NODE_LABELS,
            Event.CLAIM,
            Event.VOLUME,
            Event.STORAGE_CLASS,
            Event.CSI_NODE,
            Event.CSI_DRIVER,
            Event.STORAGE_CAPACITY,
        }
    )

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def pre_filter(self, pod: PodInfo) -> str:
        """Why no node at all will do, in Kubernetes' words; empty where nodes are to be looked at."""
        waits = False
        for key in pod.needs.claims:
            claim = self._volumes.claims.get(key)
            name = key.partition("/")[2]
            if claim is None:
                if key in pod.needs.ephemeral_claims:
                    return f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
                return f'persistentvolumeclaim "{name}" not found'
            if claim.phase == "Lost":
                return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{claim.volume}"'
            if claim.is_deleting:
                return f'persistentvolumeclaim "{name}" is being deleted'
            waits = waits or not (claim.is_bound or self._is_delayed(claim))
        return UNBOUND_IMMEDIATE if waits else ""

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """Only for pods with claims."""
        return bool(pod.needs.claims)

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """Nodes that reach the bound volumes, and where the others can be found or made."""
        mask: Mask = self._judge(pod, nodes).passed()[rows]
        return mask

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """All that apply."""
        judged = self._judge(pod, nodes)
        found = []
        if judged.is_volume_gone:
            found.append(VOLUME_GONE)
        if not judged.reachable[row]:
            found.append(NODE_CONFLICT)
        if any(choice.by_row[row] == _NOTHING for choice in judged.choices):
            found.append(BIND_CONFLICT)
        if any(choice.by_row[row] == _NO_ROOM for choice in judged.choices):
            found.append(NO_SPACE)
        return tuple(found)

    def is_helped(self, pod: PodInfo, change: Change, nodes: Columns) -> bool:
        """Room for volumes helps those who want some of its class."""
        if change.event is not Event.STORAGE_CAPACITY:
            return True
        claims = (self._volumes.claims.get(key) for key in pod.needs.claims)
        return any(claim is not None and claim.storage_class == change.subject for claim in claims)

    def decide(self, pod: PodInfo, nodes: Columns, row: int) -> Decisions:
        """What the claims of a pod get on the node of this row, which passed."""
        reservations: list[tuple[str, str]] = []
        provisions: list[str] = []
        for choice in self._judge(pod, nodes).choices:
            taken = int(choice.by_row[row])
            if taken == _TO_MAKE:
                provisions.append(choice.claim.key)
            else:
                reservations.append((choice.claim.key, choice.volumes[taken].name))
        waiting = tuple(key for key in pod.needs.claims if not self._volumes.claims[key].is_bound)
        return Decisions(nodes.names[row], waiting, tuple(reservations), tuple(provisions))

    def _is_delayed(self, claim: ClaimView) -> bool:
        """Whether the claim is to be decided with the node; one that names its volume is the binder's work."""
        item = self._volumes.classes.get(claim.storage_class)
        return item is not None and item.waits_for_consumer and not claim.volume

    def _judge(self, pod: PodInfo, nodes: Columns) -> _Judgement:
        reachable = np.ones(nodes.rows, np.bool_)
        is_gone = False
        delayed: list[ClaimView] = []
        for key in pod.needs.claims:
            claim = self._volumes.claims.get(key)
            if claim is None or not claim.is_bound:
                if claim is not None:
                    delayed.append(claim)
                continue
            volume = self._volumes.volume(claim.volume)
            if volume is None:
                is_gone = True
            else:
                reachable &= _reaches(volume, nodes)
        return _Judgement(is_gone, reachable, self._choose(delayed, nodes))

    def _choose(self, claims: list[ClaimView], nodes: Columns) -> list[_Choice]:
        """Small claims first, so that they leave the large volumes to the others; a volume serves one claim a node."""
        taken: dict[str, Mask] = {}
        choices = []
        for claim in sorted(claims, key=lambda item: (item.requested, item.key)):
            by_row = np.full(nodes.rows, _NOTHING, np.int64)
            # A node that is gone makes no volume any more: another is chosen then.
            chosen = nodes.row_of.get(self._volumes.node_chosen(claim))
            volumes = [] if chosen is not None else self._volumes.candidates(claim)
            for index, volume in enumerate(volumes):
                used = taken.setdefault(volume.name, np.zeros(nodes.rows, np.bool_))
                rows = (by_row == _NOTHING) & _reaches(volume, nodes) & ~used
                by_row[rows] = index
                used |= rows
            if chosen is not None:
                by_row[chosen] = _TO_MAKE
            elif not any(volume.is_for(claim) for volume in volumes):
                can_make = (by_row == _NOTHING) & self._can_make(claim, nodes)
                has_room = self._has_room(claim, nodes)
                by_row[can_make] = _TO_MAKE if has_room is None else np.where(has_room[can_make], _TO_MAKE, _NO_ROOM)
            choices.append(_Choice(claim, volumes, by_row))
        return choices

    def _can_make(self, claim: ClaimView, nodes: Columns) -> Mask:
        item = self._volumes.classes.get(claim.storage_class)
        # A claim that selects by labels wants a volume that is there.
        if item is None or not item.can_provision or claim.selector:
            return np.zeros(nodes.rows, np.bool_)
        found = _in_topologies(item, nodes)
        with_driver = self._volumes.nodes_with(item.provisioner)
        if with_driver:
            # A driver that runs on nodes makes volumes where it runs. One that no node has may work from afar.
            has = np.zeros(nodes.rows, np.bool_)
            has[[nodes.row_of[name] for name in with_driver if name in nodes.row_of]] = True
            found &= has
        return found

    def _has_room(self, claim: ClaimView, nodes: Columns) -> Mask | None:
        """Nodes for which the driver tells of room for a volume of that size; None where it tells nothing of room."""
        item = self._volumes.classes.get(claim.storage_class)
        if item is None or not claim.requested or not self._volumes.tells_room(item.provisioner):
            return None
        found = np.zeros(nodes.rows, np.bool_)
        for room in self._volumes.room(claim.storage_class):
            if room.nodes is not None and room.takes(claim.requested):
                found |= _selected(room.nodes, nodes)
        return found


class NodeVolumeLimits:
    """A CSI driver may say how many of its volumes a node takes."""

    name = "NodeVolumeLimits"
    events = frozenset({Event.NODE_ADDED, Event.POD_DELETED, Event.CLAIM, Event.CSI_NODE})

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """Only for pods with claims of a driver that has a limit anywhere."""
        return any(self._volumes.limits(driver) for driver in self._by_driver(pod))

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """Nodes that have room for the volumes which the pod brings and they do not have yet."""
        found = np.ones(nodes.rows, np.bool_)
        for driver, claims in self._by_driver(pod).items():
            for name, limit in self._volumes.limits(driver).items():
                row = nodes.row_of.get(name)
                if row is None:
                    continue
                there = {key for key in self._volumes.claims_on(name) if self._driver_of(key) == driver}
                found[row] &= len(there | claims) <= limit or claims <= there
        mask: Mask = found[rows]
        return mask

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """Always the same."""
        return ("node(s) exceed max volume count",)

    def _by_driver(self, pod: PodInfo) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for key in pod.needs.claims:
            driver = self._driver_of(key)
            if driver:
                found.setdefault(driver, set()).add(key)
        return found

    def _driver_of(self, key: str) -> str:
        claim = self._volumes.claims.get(key)
        return self._volumes.driver_of(claim) if claim is not None else ""


def _selected(selector: LabelSelector, nodes: Columns) -> Mask:
    """Nodes whose labels meet a selector; an empty one is met by all."""
    found = np.ones(nodes.rows, np.bool_)
    for key, value in selector.matchLabels.items():
        found &= nodes.has_pair(key, value)
    for requirement in selector.matchExpressions:
        found &= match_label(requirement, nodes)
    return found


def _reaches(volume: VolumeView, nodes: Columns) -> Mask:
    if not volume.node_affinity:
        return np.ones(nodes.rows, np.bool_)
    found = np.zeros(nodes.rows, np.bool_)
    for term in NodeSelector.FromString(volume.node_affinity).nodeSelectorTerms:
        found |= match_term(term, nodes)
    return found


def _in_topologies(item: ClassView, nodes: Columns) -> Mask:
    if not item.topologies:
        return np.ones(nodes.rows, np.bool_)
    found = np.zeros(nodes.rows, np.bool_)
    for term in item.topologies:
        meets = np.ones(nodes.rows, np.bool_)
        for label, values in term:
            has_one = np.zeros(nodes.rows, np.bool_)
            for value in values:
                has_one |= nodes.has_pair(label, value)
            meets &= has_one
        found |= meets
    return found
