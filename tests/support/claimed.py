"""Slices, classes and claims of devices, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.resource.v1.resource_pb2 import Device, DeviceClass, ResourceClaim, ResourceSlice

DRIVER = "gpu.example"


def device(name: str, **attributes: Any) -> Device:
    """A device; attributes are whole numbers, texts or truth values."""
    found = Device(name=name)
    for key, value in attributes.items():
        kind = "bool" if isinstance(value, bool) else "int" if isinstance(value, int) else "string"
        setattr(found.attributes[key], kind, value)
    return found


def resource_slice(
    name: str,
    *devices: Device,
    node: str = "",
    pool: str = "",
    generation: int = 1,
    count: int = 1,
    zone: str = "",
) -> ResourceSlice:
    """A slice of a node's pool; without node or zone the devices are everywhere."""
    found = ResourceSlice()
    found.metadata.name = name
    spec = found.spec
    spec.driver, spec.pool.name = DRIVER, pool or node or name
    spec.pool.generation, spec.pool.resourceSliceCount = generation, count
    if node:
        spec.nodeName = node
    elif zone:
        spec.nodeSelector.nodeSelectorTerms.add().matchExpressions.add(key="zone", operator="In", values=[zone])
    else:
        spec.allNodes = True
    spec.devices.extend(devices)
    return found


def device_class(name: str = "gpu", *expressions: str) -> DeviceClass:
    """A class; without a condition every device is in it."""
    found = DeviceClass()
    found.metadata.name = name
    for expression in expressions:
        found.spec.selectors.add().cel.expression = expression
    return found


def claim(name: str, *requests: Mapping[str, Any], match: str = "", namespace: str = "default") -> ResourceClaim:
    """A claim; each request is fields of an ExactDeviceRequest, or a list of such as `any`."""
    found = ResourceClaim()
    found.metadata.name, found.metadata.namespace, found.metadata.uid = name, namespace, f"uid-{name}"
    for number, wanted in enumerate(requests or ({},)):
        request = found.spec.devices.requests.add(name=f"r{number}")
        choices: Sequence[Mapping[str, Any]] | None = wanted.get("any")
        if choices is None:
            _fill(request.exactly, wanted)
            continue
        for place, choice in enumerate(choices):
            _fill(request.firstAvailable.add(name=f"c{place}"), choice)
    if match:
        found.spec.devices.constraints.add(matchAttribute=match)
    return found


def _fill(target: Any, wanted: Mapping[str, Any]) -> None:
    target.deviceClassName = wanted.get("of", "gpu")
    target.allocationMode = "All" if wanted.get("all") else "ExactCount"
    target.count = 0 if wanted.get("all") else wanted.get("count", 1)
    for expression in wanted.get("where", ()):
        target.selectors.add().cel.expression = expression
    if wanted.get("admin"):
        target.adminAccess = True


def use(pod: Pod, *claims: str) -> Pod:
    """The pod with claims that exist, each under its own name."""
    for name in claims:
        pod.spec.resourceClaims.add(name=name, resourceClaimName=name)
        pod.spec.containers[0].resources.claims.add(name=name)
    return pod
