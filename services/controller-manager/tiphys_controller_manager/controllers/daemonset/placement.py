"""On which nodes the pods of a DaemonSet belong, and how a pod is made for one node; pure.

Source: kubernetes pkg/controller/daemon/daemon_controller.go (NodeShouldRunDaemonPod) and util/daemonset_util.go.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import pod_pb2, scheduling_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.node_selector import NAME_FIELD, NodeSelection, node_selection
from tiphys_controller_manager.nodes import NodeView
from tiphys_controller_manager.pod_control import pod_from_template
from tiphys_controller_manager.pods import Toleration, tolerations_of
from tiphys_controller_manager.revisions import DAEMON_SETS
from tiphys_controller_manager.taints import (
    CONDITION_TAINTS,
    NO_EXECUTE,
    NO_SCHEDULE,
    NOT_READY,
    UNREACHABLE,
    UNSCHEDULABLE,
    Taint,
    tolerates,
)

HASH_LABEL: Final = DAEMON_SETS.hash_label
# How old the template is, for clients of the time before revisions.
_GENERATION_LABEL: Final = "pod-template-generation"
_GENERATION: Final = "deprecated.daemonset.template.generation"
_NETWORK_TAINT: Final = CONDITION_TAINTS["NetworkUnavailable"]


class Fate(enum.Enum):
    """What a DaemonSet wants of a node."""

    # A pod, made if there is none.
    RUNS = enum.auto()
    # No new pod, but the one that is there may stay.
    STAYS = enum.auto()
    # No pod.
    LEAVES = enum.auto()


@dataclass(frozen=True, slots=True)
class Rules:
    """What a template says of nodes, with the tolerations that every daemon has."""

    node_name: str
    selection: NodeSelection
    tolerations: tuple[Toleration, ...]

    def fate(self, node: NodeView) -> Fate:
        """What becomes of a pod on this node."""
        if self.node_name and self.node_name != node.name:
            return Fate.LEAVES
        if not self.selection.matches(node.name, node.labels):
            return Fate.LEAVES
        effects = {taint.effect for taint in node.taints if not self._bears(taint)}
        if NO_EXECUTE in effects:
            return Fate.LEAVES
        return Fate.STAYS if NO_SCHEDULE in effects else Fate.RUNS

    def _bears(self, taint: Taint) -> bool:
        return any(tolerates(toleration, taint) for toleration in self.tolerations)


def rules_of(daemon_set: apps_pb2.DaemonSet) -> Rules:
    """The rules of a DaemonSet's template."""
    spec = pod_pb2.PodSpec()
    spec.CopyFrom(daemon_set.spec.template.spec)
    _add_tolerations(spec)
    return Rules(spec.nodeName, node_selection(spec), tolerations_of(spec))


def make_pod(
    daemon_set: apps_pb2.DaemonSet, owner: meta_pb2.OwnerReference, *, node: str, revision_hash: str
) -> pod_pb2.Pod:
    """A pod for one node. The scheduler binds it, so that the node's room is counted in one place."""
    template, metadata = daemon_set.spec.template, daemon_set.metadata
    pod = pod_from_template(template, metadata.namespace, metadata.name, owner)
    pod.metadata.labels[HASH_LABEL] = revision_hash
    generation = metadata.annotations.get(_GENERATION, "")
    if generation.isdecimal():
        pod.metadata.labels[_GENERATION_LABEL] = generation
    _add_tolerations(pod.spec)
    required = pod.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution
    # The template's own terms have been asked already: this one node stands for all of them.
    required.ClearField("nodeSelectorTerms")
    required.nodeSelectorTerms.add().matchFields.add(key=NAME_FIELD, operator="In", values=[node])
    return pod


def _add_tolerations(spec: pod_pb2.PodSpec) -> None:
    """What the node's state must not drive away: daemons are what mends it."""
    wanted = [(NOT_READY, NO_EXECUTE), (UNREACHABLE, NO_EXECUTE)]
    wanted += [(key, NO_SCHEDULE) for key in (*CONDITION_TAINTS.values(), UNSCHEDULABLE) if key != _NETWORK_TAINT]
    if spec.hostNetwork:
        wanted.append((_NETWORK_TAINT, NO_SCHEDULE))
    for key, effect in wanted:
        made = scheduling_pb2.Toleration(key=key, operator="Exists", effect=effect)
        for known in spec.tolerations:
            if (known.key, known.operator, known.effect, known.value) == (key, "Exists", effect, ""):
                # The template bears it for a time; a daemon bears it for ever.
                known.CopyFrom(made)
                break
        else:
            spec.tolerations.append(made)
