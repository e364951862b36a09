"""The nodes and pods of upstream's public scheduler benchmarks, by number.

Source: kubernetes test/integration/scheduler_perf/templates: nodes of 4 CPUs, 32 GiB, 110 pods; pods of 100m, 500 MiB.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.unit.scheduler.objects import node, pod_message
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.scheduling_pb2 import PodAffinityTerm

_HOST, _ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
Shape = Callable[[int], Pod]
NodeShape = Callable[[int], Node]


def basic(number: int, prefix: str = "p") -> Pod:
    """Upstream's default pod."""
    return pod_message(f"{prefix}{number}", cpu="100m", memory="500Mi")


def _labelled(number: int, color: str, namespace: str = "sched-0") -> Pod:
    found = basic(number)
    found.metadata.namespace, found.metadata.labels["color"] = namespace, color
    return found


def low_priority(number: int) -> Pod:
    """Four of them fill a node."""
    found = pod_message(f"low{number}", cpu="900m", memory="500Mi", priorityClassName="low")
    found.spec.terminationGracePeriodSeconds = 0
    return found


def high_priority(number: int) -> Pod:
    """Needs the room of three."""
    return pod_message(f"high{number}", cpu="3000m", memory="500Mi", priorityClassName="high")


def hopeless(number: int) -> Pod:
    """Fits nowhere, whoever leaves."""
    return pod_message(f"hopeless{number}", cpu="9", memory="500Mi", priorityClassName="high")


def filler(number: int) -> Pod:
    """The same under another name."""
    return basic(number, "b")


def _term(color: str, key: str) -> PodAffinityTerm:
    found = PodAffinityTerm(topologyKey=key, namespaces=["sched-1", "sched-0"])
    found.labelSelector.matchLabels["color"] = color
    return found


def anti_affinity(number: int) -> Pod:
    """Refuses nodes with a pod of its kind."""
    found = _labelled(number, "green")
    found.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution.append(_term("green", _HOST))
    return found


def affinity(number: int) -> Pod:
    """Goes where a pod of its kind is."""
    found = _labelled(number, "blue")
    found.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution.append(_term("blue", _ZONE))
    return found


def preferring(side: str) -> Shape:
    """Would like (or not) to be with its kind: side is podAffinity or podAntiAffinity."""

    def made(number: int) -> Pod:
        found = _labelled(number, "red")
        preferred = getattr(found.spec.affinity, side).preferredDuringSchedulingIgnoredDuringExecution
        preferred.add(weight=1).podAffinityTerm.CopyFrom(_term("red", _HOST))
        return found

    return made


def spreading(how: str) -> Shape:
    """Spreads over zones: how is what to do where that cannot be."""

    def made(number: int) -> Pod:
        found = _labelled(number, "blue")
        constraint = found.spec.topologySpreadConstraints.add(maxSkew=5, topologyKey=_ZONE, whenUnsatisfiable=how)
        constraint.labelSelector.matchLabels["color"] = "blue"
        return found

    return made


def node_affinity(number: int) -> Pod:
    """Goes to two zones only."""
    found = basic(number)
    affinity = found.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution
    affinity.nodeSelectorTerms.add().matchExpressions.add(key=_ZONE, operator="In", values=["zone1", "zone2"])
    return found


def daemon(number: int) -> Pod:
    """As the DaemonSet controller makes them: for one node."""
    found = basic(number)
    affinity = found.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution
    affinity.nodeSelectorTerms.add().matchFields.add(key="metadata.name", operator="In", values=[f"n{number}"])
    return found


def daemon_of(nodes: int) -> Shape:
    """The same where there are more pods than nodes."""

    def made(number: int) -> Pod:
        found = daemon(number % nodes)
        found.metadata.name = f"p{number}"
        return found

    return made


def by_namespaces(number: int) -> Pod:
    """Refuses nodes with a pod of its kind in any namespace of the team."""
    found = _labelled(number, "green", f"ns-{number % 100}")
    term = found.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution.add(topologyKey=_HOST)
    term.labelSelector.matchLabels["color"] = "green"
    term.namespaceSelector.matchLabels["team"] = "devops"
    return found


_MIXED = (basic, affinity, anti_affinity, preferring("podAffinity"), preferring("podAntiAffinity"))


def mixed(number: int) -> Pod:
    """Five kinds in turn."""
    return _MIXED[number % len(_MIXED)](number)


def many_shapes(number: int) -> Pod:
    """50 sizes in turn."""
    return pod_message(f"p{number}", cpu=f"{100 + number % 50}m", memory="500Mi")


def soft_preferences(number: int) -> Pod:
    """Would like one zone."""
    found = basic(number)
    preferred = found.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution.add(weight=10)
    preferred.preference.matchExpressions.add(key=_ZONE, operator="In", values=["zone1"])
    return found


def plain_node(number: int) -> Node:
    """Upstream's default node."""
    return node(f"n{number}", cpu="4", memory="32Gi", labels={_HOST: f"n{number}"})


def zoned(*zones: str) -> NodeShape:
    """Nodes in zones in turn."""

    def made(number: int) -> Node:
        labels = {_HOST: f"n{number}", _ZONE: zones[number % len(zones)]}
        return node(f"n{number}", cpu="4", memory="32Gi", labels=labels)

    return made


def softly_tainted(number: int) -> Node:
    """Every third has a taint that is better avoided."""
    found = zoned("zone1", "zone2")(number)
    if number % 3 == 0:
        found.spec.taints.add(key="busy", effect="PreferNoSchedule")
    return found


MOON = zoned("moon-1", "moon-2", "moon-3")
