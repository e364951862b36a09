"""A new node takes no pods until its kubelet has said that it is ready."""

from __future__ import annotations

from typing import Any

from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.admission.plugins.default_tolerations import NOT_READY


class TaintNodesByCondition:
    """Gives new nodes the not-ready taint, which the node lifecycle controller takes away."""

    name = "TaintNodesByCondition"

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """New nodes."""
        return (
            attributes.operation is Operation.CREATE
            and attributes.resource.plural == "nodes"
            and not attributes.resource.group
            and not attributes.subresource
        )

    async def admit(self, attributes: AdmissionAttributes) -> None:
        """Add the taint where it is not there."""
        node: Any = attributes.object
        if not any(taint.key == NOT_READY and taint.effect == "NoSchedule" for taint in node.spec.taints):
            node.spec.taints.add(key=NOT_READY, effect="NoSchedule")
