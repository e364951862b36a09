"""What the controllers need to know of a node, made once for each version of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tiphys.api.core.v1 import node_pb2
from tiphys_controller_manager.taints import Taint

ZONE_LABEL: Final = "topology.kubernetes.io/zone"
REGION_LABEL: Final = "topology.kubernetes.io/region"


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node, as far as it says which pods it takes; two versions that differ in nothing of it are equal."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]

    @property
    def zone(self) -> str:
        """Its zone, empty where it has none."""
        return self.labels.get(ZONE_LABEL, "")


def node_view(node: node_pb2.Node) -> NodeView:
    """The view of a node."""
    return NodeView(
        name=node.metadata.name,
        labels=dict(node.metadata.labels),
        taints=tuple(Taint(taint.key, taint.value, taint.effect) for taint in node.spec.taints),
    )


def zone_of(node: node_pb2.Node) -> str:
    """The node's zone, empty where it has none."""
    return str(node.metadata.labels.get(ZONE_LABEL, ""))


def is_ready(node: node_pb2.Node) -> bool:
    """Whether the node's kubelet says that it can run pods."""
    return any(item.type == "Ready" and item.status == "True" for item in node.status.conditions)
