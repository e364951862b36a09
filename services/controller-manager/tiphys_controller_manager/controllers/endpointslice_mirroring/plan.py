"""Which EndpointSlices stand for Endpoints that somebody wrote by hand; pure.

Source: kubernetes pkg/controller/endpointslicemirroring.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tiphys.api.core.v1 import endpoints_pb2, service_pb2
from tiphys.api.discovery.v1 import discovery_pb2
from tiphys_apimachinery.meta import is_being_deleted, new_controller_ref
from tiphys_controller_manager.backends import IPV4, IPV6, SERVICE_NAME
from tiphys_controller_manager.controllers.endpointslice.plan import MANAGED_BY
from tiphys_controller_manager.slices import EndpointSlice, SlicePlan

MANAGER: Final = "endpointslicemirroring-controller.k8s.io"
SKIP_LABEL: Final = "endpointslice.kubernetes.io/skip-mirror"
_LEADER: Final = "control-plane.alpha.kubernetes.io/leader"
# Annotations that speak of the Endpoints alone.
_NOT_COPIED: Final = frozenset(
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"]
)

Endpoints = endpoints_pb2.Endpoints
Endpoint = discovery_pb2.Endpoint
# Address family, then the ports as bytes.
_Group = tuple[str, tuple[bytes, ...]]


def is_mirrored(endpoints: Endpoints, service: service_pb2.Service | None) -> bool:
    """Whether slices are to be made of these Endpoints: of those that no selector made, and that do not lock."""
    if service is None or is_being_deleted(endpoints) or is_being_deleted(service):
        return False
    metadata = endpoints.metadata
    if metadata.labels.get(SKIP_LABEL) == "true" or _LEADER in metadata.annotations:
        return False
    return not service.spec.selector


def plan_mirror(
    endpoints: Endpoints, existing: Sequence[EndpointSlice], *, most_in_subset: int, most_in_slice: int
) -> SlicePlan:
    """The writes; existing are all slices that we manage for these Endpoints and are not changed.

    Of each subset so many addresses are taken at most, and the others left out.
    """
    plan = SlicePlan()
    left = list(existing)
    for group, found in _wanted(endpoints, most_in_subset).items():
        known = [item for item in left if _group_of(item) == group]
        for start in range(0, len(found), most_in_slice):
            part = found[start : start + most_in_slice]
            if not known:
                plan.create.append(_new(endpoints, group, part))
                continue
            item = known.pop(0)
            left.remove(item)
            changed = _with(endpoints, item, part)
            if changed != item:
                plan.update.append(changed)
    plan.delete.extend(left)
    return plan


def _wanted(endpoints: Endpoints, most: int) -> dict[_Group, list[Endpoint]]:
    found: dict[_Group, dict[str, Endpoint]] = {}
    for subset in endpoints.subsets:
        ports = tuple(sorted(_port(port).SerializeToString(deterministic=True) for port in subset.ports))
        all_of = [(item, True) for item in subset.addresses] + [(item, False) for item in subset.notReadyAddresses]
        for address, is_ready in all_of[:most]:
            family = _family(address.ip)
            if family is not None:
                # An address that is both, in two subsets, serves.
                known = found.setdefault((family, ports), {})
                if address.ip not in known or is_ready:
                    known[address.ip] = _endpoint(address, is_ready=is_ready)
    return {group: list(items.values()) for group, items in found.items()}


def _family(ip: str) -> str | None:
    try:
        return IPV6 if ipaddress.ip_address(ip).version == 6 else IPV4
    except ValueError:
        return None


def _port(port: endpoints_pb2.EndpointPort) -> discovery_pb2.EndpointPort:
    made = discovery_pb2.EndpointPort(name=port.name, protocol=port.protocol or "TCP", port=port.port)
    if port.HasField("appProtocol"):
        made.appProtocol = port.appProtocol
    return made


def _endpoint(address: endpoints_pb2.EndpointAddress, *, is_ready: bool) -> Endpoint:
    made = Endpoint(addresses=[address.ip])
    made.conditions.ready = is_ready
    if address.HasField("targetRef"):
        made.targetRef.CopyFrom(address.targetRef)
    if address.nodeName:
        made.nodeName = address.nodeName
    if address.hostname:
        made.hostname = address.hostname
    return made


def _group_of(item: EndpointSlice) -> _Group:
    return item.addressType, tuple(sorted(port.SerializeToString(deterministic=True) for port in item.ports))


def _new(endpoints: Endpoints, group: _Group, found: Iterable[Endpoint]) -> EndpointSlice:
    family, ports = group
    made = EndpointSlice(addressType=family, endpoints=found)
    made.ports.extend(discovery_pb2.EndpointPort.FromString(raw) for raw in ports)
    made.metadata.generateName = f"{endpoints.metadata.name}-"
    made.metadata.namespace = endpoints.metadata.namespace
    made.metadata.ownerReferences.append(new_controller_ref(endpoints, "v1", "Endpoints"))
    _copy(made.metadata.labels, _labels(endpoints))
    _copy(made.metadata.annotations, _annotations(endpoints))
    return made


def _with(endpoints: Endpoints, item: EndpointSlice, found: Iterable[Endpoint]) -> EndpointSlice:
    made = EndpointSlice()
    made.CopyFrom(item)
    del made.endpoints[:]
    made.endpoints.extend(found)
    _copy(made.metadata.labels, _labels(endpoints))
    _copy(made.metadata.annotations, _annotations(endpoints))
    return made


def _copy(target: Any, values: Mapping[str, str]) -> None:
    target.clear()
    target.update(values)


def _labels(endpoints: Endpoints) -> dict[str, str]:
    return {**endpoints.metadata.labels, SERVICE_NAME: endpoints.metadata.name, MANAGED_BY: MANAGER}


def _annotations(endpoints: Endpoints) -> dict[str, str]:
    return {key: value for key, value in endpoints.metadata.annotations.items() if key not in _NOT_COPIED}
