"""What is written into the status of a claim that was met. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tiphys.api.core.v1.scheduling_pb2 import NodeSelector, NodeSelectorTerm
from tiphys.api.resource.v1.resource_pb2 import AllocationResult, DeviceClass, DeviceToleration, ResourceClaim
from tiphys_apimachinery.resource_claims import is_covered
from tiphys_scheduler.dynamic_resources.model import Device, Given


def allocation_result(
    claim: ResourceClaim, given: Sequence[Given], node: str, classes: Mapping[str, DeviceClass]
) -> AllocationResult:
    """Devices, settings and reach; the settings of classes come first, so that those of the claim count more."""
    found = AllocationResult()
    for item in given:
        driver, pool, device = item.device.id
        result = found.devices.results.add(request=item.choice.name, driver=driver, pool=pool, device=device)
        if item.choice.is_admin:
            result.adminAccess = True
        result.tolerations.extend(DeviceToleration.FromString(raw) for raw in item.choice.tolerations)
    for choice in dict.fromkeys(item.choice for item in given):
        of_class = classes.get(choice.device_class)
        for setting in of_class.spec.config if of_class is not None else ():
            added = found.devices.config.add(source="FromClass", requests=[choice.name])
            added.deviceConfiguration.CopyFrom(setting.deviceConfiguration)
    names = [item.choice.name for item in given]
    for own in claim.spec.devices.config:
        if not own.requests or any(is_covered(name, own.requests) for name in names):
            added = found.devices.config.add(source="FromClaim", requests=own.requests)
            added.deviceConfiguration.CopyFrom(own.deviceConfiguration)
    selector = node_selector([item.device for item in given], node)
    if selector is not None:
        found.nodeSelector.CopyFrom(selector)
    return found


def node_selector(devices: Sequence[Device], node: str) -> NodeSelector | None:
    """The nodes from which all devices can be used; None for all nodes."""
    terms = [NodeSelectorTerm()]
    selectors = dict.fromkeys(device.reach.selector for device in devices if device.reach.selector)
    if any(device.reach.node or device.binds_to_node for device in devices):
        found = NodeSelector()
        found.nodeSelectorTerms.add().matchFields.add(key="metadata.name", operator="In", values=[node])
        return found
    if not selectors:
        return None
    for raw in selectors:
        # One of the terms of each must hold: every combination is a term.
        terms = [_both(before, more) for before in terms for more in NodeSelector.FromString(raw).nodeSelectorTerms]
    return NodeSelector(nodeSelectorTerms=terms)


def _both(one: NodeSelectorTerm, other: NodeSelectorTerm) -> NodeSelectorTerm:
    found = NodeSelectorTerm()
    for term in (one, other):
        found.matchExpressions.extend(item for item in term.matchExpressions if item not in found.matchExpressions)
        found.matchFields.extend(item for item in term.matchFields if item not in found.matchFields)
    return found
