"""What the controllers need to know of a node."""

from __future__ import annotations

from typing import Final

from tiphys.api.core.v1 import node_pb2

ZONE_LABEL: Final = "topology.kubernetes.io/zone"
REGION_LABEL: Final = "topology.kubernetes.io/region"


def zone_of(node: node_pb2.Node) -> str:
    """The node's zone, empty where it has none."""
    return str(node.metadata.labels.get(ZONE_LABEL, ""))


def is_ready(node: node_pb2.Node) -> bool:
    """Whether the node's kubelet says that it can run pods."""
    return any(item.type == "Ready" and item.status == "True" for item in node.status.conditions)
