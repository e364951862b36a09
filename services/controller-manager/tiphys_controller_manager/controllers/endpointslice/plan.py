"""Which EndpointSlices a Service should have, with as few changes to those it has as possible.

Source: kubernetes staging/src/k8s.io/endpointslice reconciler.go and utils.go.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tiphys.api.core.v1 import service_pb2
from tiphys.api.discovery.v1 import discovery_pb2
from tiphys_apimachinery.meta import new_controller_ref
from tiphys_controller_manager.backends import (
    HEADLESS_LABEL,
    SERVICE_NAME,
    address,
    families,
    hostname,
    is_headless,
    reference,
    target_port,
)
from tiphys_controller_manager.pods import PodView
from tiphys_controller_manager.slices import EndpointSlice, SlicePlan

MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
MANAGER: Final = "endpointslice-controller.k8s.io"

Endpoint = discovery_pb2.Endpoint
# Address type, then the ports as bytes.
_Group = tuple[str, tuple[bytes, ...]]


@dataclass(frozen=True, slots=True)
class _Planner:
    """One plan while it is made."""

    service: service_pb2.Service
    limit: int
    plan: SlicePlan


def plan_slices(
    service: service_pb2.Service,
    pods: Iterable[PodView],
    zones: Mapping[str, str],
    existing: Sequence[EndpointSlice],
    *,
    limit: int,
) -> SlicePlan:
    """The writes; existing are all slices that we manage for the Service and are not changed.

    zones is by node name. limit is the most endpoints of one slice.
    """
    wanted = _wanted(service, pods, zones)
    known: dict[_Group, list[EndpointSlice]] = defaultdict(list)
    plan = SlicePlan()
    planner = _Planner(service, limit, plan)
    kinds = families(service)
    for item in existing:
        if item.addressType in kinds:
            known[_group(item.addressType, item.ports)].append(item)
        else:
            plan.delete.append(item)
    for kind in kinds:
        kept: list[EndpointSlice] = []
        for group in [group for group in {**known, **wanted} if group[0] == kind]:
            kept += _plan_group(planner, group, wanted.get(group, {}), known.get(group, []))
        _settle_empty(service, kind, kept, plan)
    return plan


def _wanted(
    service: service_pb2.Service, pods: Iterable[PodView], zones: Mapping[str, str]
) -> dict[_Group, dict[str, Endpoint]]:
    """For each family and set of ports, the endpoints by pod uid."""
    found: dict[_Group, dict[str, Endpoint]] = defaultdict(dict)
    kinds = families(service)
    for pod in pods:
        if pod.is_finished or not pod.ips:
            continue
        ports = _ports(service, pod)
        for kind in kinds:
            ip = address(pod, kind)
            if ip is not None:
                found[_group(kind, ports)][pod.uid] = _endpoint(service, pod, ip, zones)
    return found


def _ports(service: service_pb2.Service, pod: PodView) -> list[discovery_pb2.EndpointPort]:
    made = []
    for port in service.spec.ports:
        number = target_port(pod, port)
        if number is None:
            # The pod has no port of that name: it serves the others.
            continue
        item = discovery_pb2.EndpointPort(name=port.name, protocol=port.protocol or "TCP", port=number)
        if port.HasField("appProtocol"):
            item.appProtocol = port.appProtocol
        made.append(item)
    return made


def _endpoint(service: service_pb2.Service, pod: PodView, ip: str, zones: Mapping[str, str]) -> Endpoint:
    made = Endpoint(addresses=[ip], targetRef=reference(pod))
    made.conditions.serving = pod.is_ready
    made.conditions.terminating = pod.is_deleting
    made.conditions.ready = service.spec.publishNotReadyAddresses or (pod.is_ready and not pod.is_deleting)
    if pod.node:
        made.nodeName = pod.node
        if zones.get(pod.node):
            made.zone = zones[pod.node]
    name = hostname(pod, service)
    if name:
        made.hostname = name
    return made


def _group(kind: str, ports: Iterable[discovery_pb2.EndpointPort]) -> _Group:
    return kind, tuple(sorted(port.SerializeToString(deterministic=True) for port in ports))


def _plan_group(
    planner: _Planner, group: _Group, wanted: Mapping[str, Endpoint], known: Sequence[EndpointSlice]
) -> list[EndpointSlice]:
    """Plan the slices of one family and set of ports: update in place, fill what changes anyway, then what has room.

    Returns those that stay as they are.
    """
    service, limit, plan = planner.service, planner.limit, planner.plan
    left = dict(wanted)
    changed: list[EndpointSlice] = []
    unchanged: list[EndpointSlice] = []
    for item in known:
        kept = [left.pop(old.targetRef.uid) for old in item.endpoints if old.targetRef.uid in left]
        if kept == list(item.endpoints) and not _needs_labels(service, item):
            unchanged.append(item)
        else:
            changed.append(_with(service, item, kept))
    pending = [left[uid] for uid in sorted(left)]
    for item in changed:
        room = max(0, limit - len(item.endpoints))
        item.endpoints.extend(pending[:room])
        pending = pending[room:]
    while pending:
        # One slice that takes all of the rest is a smaller change than a new one beside it.
        fitting = [item for item in unchanged if len(item.endpoints) + len(pending) <= limit]
        if fitting and len(pending) < limit:
            fullest = max(fitting, key=lambda item: len(item.endpoints))
            unchanged.remove(fullest)
            changed.append(_with(service, fullest, [*fullest.endpoints, *pending]))
            break
        plan.create.append(_new(service, group, pending[:limit]))
        pending = pending[limit:]
    for item in changed:
        (plan.update if item.endpoints else plan.delete).append(item)
    return unchanged


def _settle_empty(service: service_pb2.Service, kind: str, kept: Sequence[EndpointSlice], plan: SlicePlan) -> None:
    """A Service without endpoints still has one slice of each family, which says so; others have none."""
    written = [item for item in (*plan.create, *plan.update, *kept) if item.addressType == kind]
    empty = [item for item in kept if not item.endpoints]
    if any(item.endpoints for item in written):
        plan.delete += empty
        return
    placeholder = next((item for item in empty if not item.ports), None)
    plan.delete += [item for item in empty if item is not placeholder]
    if placeholder is None:
        plan.create.append(_new(service, (kind, ()), []))


def _new(service: service_pb2.Service, group: _Group, endpoints: Sequence[Endpoint]) -> EndpointSlice:
    kind, ports = group
    made = EndpointSlice(addressType=kind, endpoints=endpoints)
    made.ports.extend(discovery_pb2.EndpointPort.FromString(raw) for raw in ports)
    made.metadata.generateName = f"{service.metadata.name}-"
    made.metadata.namespace = service.metadata.namespace
    made.metadata.ownerReferences.append(new_controller_ref(service, "v1", "Service"))
    made.metadata.labels.update(labels_for(service))
    return made


def _with(service: service_pb2.Service, item: EndpointSlice, endpoints: Sequence[Endpoint]) -> EndpointSlice:
    made = EndpointSlice()
    made.CopyFrom(item)
    del made.endpoints[:]
    made.endpoints.extend(endpoints)
    made.metadata.labels.clear()
    made.metadata.labels.update(labels_for(service))
    return made


def labels_for(service: service_pb2.Service) -> dict[str, str]:
    """The labels of its slices: its own and those that say whose they are."""
    reserved = (SERVICE_NAME, MANAGED_BY, HEADLESS_LABEL)
    labels = {key: value for key, value in service.metadata.labels.items() if key not in reserved}
    labels[SERVICE_NAME] = service.metadata.name
    labels[MANAGED_BY] = MANAGER
    if is_headless(service):
        labels[HEADLESS_LABEL] = ""
    return labels


def _needs_labels(service: service_pb2.Service, item: EndpointSlice) -> bool:
    return dict(item.metadata.labels) != labels_for(service)
