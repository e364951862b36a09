"""Cells of networking, discovery, storage, RBAC, scheduling, certificates and the API's own groups."""

from __future__ import annotations

import datetime
from typing import Any, Final

from tiphys_apimachinery.codec.cells.core import load_balancer_text
from tiphys_apimachinery.codec.cells.text import (
    NONE,
    UNSET,
    first_of,
    human_duration,
    joined,
    object_age,
    optional,
    selector_text,
)
from tiphys_apimachinery.codec.special import quantity_text
from tiphys_apimachinery.meta import find_condition, is_condition_true

_DEFAULT_CLASS: Final = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


def ingress_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, class, hosts, address, ports, age."""
    hosts = [rule.host for rule in obj.spec.rules if rule.host]
    return [
        obj.metadata.name,
        optional(obj.spec, "ingressClassName"),
        first_of(hosts, 3, empty="*"),
        load_balancer_text(obj.status.loadBalancer),
        "80, 443" if obj.spec.tls else "80",
        object_age(obj, now),
    ]


def ingress_class_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, controller, parameters, age."""
    parameters = NONE
    if obj.spec.HasField("parameters"):
        reference = obj.spec.parameters
        group = f".{reference.aPIGroup}" if reference.HasField("aPIGroup") else ""
        parameters = f"{reference.kind}{group}/{reference.name}"
    return [obj.metadata.name, obj.spec.controller, parameters, object_age(obj, now)]


def ip_address_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, parent."""
    if not obj.spec.HasField("parentRef"):
        return [obj.metadata.name, NONE]
    parent = obj.spec.parentRef
    group = f".{parent.group}" if parent.group else ""
    steps = [f"{parent.resource}{group}", *([parent.namespace] if parent.namespace else []), parent.name]
    return [obj.metadata.name, "/".join(steps).lower()]


def network_policy_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, pod selector, age."""
    return [obj.metadata.name, selector_text(obj.spec, "podSelector"), object_age(obj, now)]


def service_cidr_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, ranges, age."""
    return [obj.metadata.name, joined(obj.spec.cidrs), object_age(obj, now)]


def endpoint_slice_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, address type, ports, endpoints, age."""
    ports = [str(port.port) if port.HasField("port") else port.name or "*" for port in obj.ports]
    addresses = [address for endpoint in obj.endpoints for address in endpoint.addresses]
    return [
        obj.metadata.name,
        obj.addressType,
        first_of(ports, 3, empty=UNSET),
        first_of(addresses, 3, empty=UNSET),
        object_age(obj, now),
    ]


def binding_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, role, age, users, groups, service accounts."""
    users = [subject.name for subject in obj.subjects if subject.kind == "User"]
    groups = [subject.name for subject in obj.subjects if subject.kind == "Group"]
    accounts = [f"{s.namespace}/{s.name}" for s in obj.subjects if s.kind == "ServiceAccount"]
    return [
        obj.metadata.name,
        f"{obj.roleRef.kind}/{obj.roleRef.name}",
        object_age(obj, now),
        ", ".join(users),
        ", ".join(groups),
        ", ".join(accounts),
    ]


def signing_request_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, age, signer, requestor, requested duration, condition."""
    duration = human_duration(obj.spec.expirationSeconds) if obj.spec.HasField("expirationSeconds") else NONE
    condition = "Pending"
    for kind in ("Approved", "Denied"):
        if find_condition(obj.status.conditions, kind) is not None:
            condition = kind
    if find_condition(obj.status.conditions, "Failed") is not None:
        condition += ",Failed"
    if obj.status.certificate:
        condition += ",Issued"
    return [
        obj.metadata.name,
        object_age(obj, now),
        obj.spec.signerName or NONE,
        obj.spec.username,
        duration,
        condition,
    ]


def lease_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, holder, age."""
    return [obj.metadata.name, obj.spec.holderIdentity, object_age(obj, now)]


def runtime_class_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, handler, age."""
    return [obj.metadata.name, obj.handler, object_age(obj, now)]


def priority_class_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, value, whether default, age, preemption policy."""
    return [obj.metadata.name, obj.value, obj.globalDefault, object_age(obj, now), obj.preemptionPolicy]


def storage_class_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, provisioner, policy, binding mode, expansion, age."""
    is_default = any(obj.metadata.annotations.get(name) == "true" for name in _DEFAULT_CLASS)
    return [
        f"{obj.metadata.name} (default)" if is_default else obj.metadata.name,
        obj.provisioner,
        optional(obj, "reclaimPolicy", "Delete"),
        optional(obj, "volumeBindingMode", "Immediate"),
        obj.allowVolumeExpansion,
        object_age(obj, now),
    ]


def csi_driver_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, abilities, modes, age."""
    audiences = [request.audience for request in obj.spec.tokenRequests]
    return [
        obj.metadata.name,
        optional(obj.spec, "attachRequired", True),
        obj.spec.podInfoOnMount,
        obj.spec.storageCapacity,
        joined(audiences, empty=UNSET),
        obj.spec.requiresRepublish,
        joined(obj.spec.volumeLifecycleModes, empty=NONE),
        object_age(obj, now),
    ]


def csi_node_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, number of drivers, age."""
    return [obj.metadata.name, len(obj.spec.drivers), object_age(obj, now)]


def storage_capacity_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, class, capacity."""
    capacity = quantity_text(obj.capacity.string) if obj.HasField("capacity") else UNSET
    return [obj.metadata.name, obj.storageClassName, capacity]


def volume_attachment_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, attacher, volume, node, whether attached, age."""
    return [
        obj.metadata.name,
        obj.spec.attacher,
        obj.spec.source.persistentVolumeName,
        obj.spec.nodeName,
        obj.status.attached,
        object_age(obj, now),
    ]


def attributes_class_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, driver, age."""
    return [obj.metadata.name, obj.driverName, object_age(obj, now)]


def device_class_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, age; claim templates show the same."""
    return [obj.metadata.name, object_age(obj, now)]


def resource_claim_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, state, age."""
    states = []
    if obj.metadata.HasField("deletionTimestamp"):
        states.append("deleted")
    if obj.status.HasField("allocation"):
        states.append("allocated")
    if obj.status.reservedFor:
        states.append("reserved")
    return [obj.metadata.name, joined(states, empty="pending"), object_age(obj, now)]


def resource_slice_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, node, driver, pool, age."""
    return [obj.metadata.name, obj.spec.nodeName, obj.spec.driver, obj.spec.pool.name, object_age(obj, now)]


def webhooks_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, number of webhooks, age; of both configurations."""
    return [obj.metadata.name, len(obj.Webhooks), object_age(obj, now)]


def admission_policy_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, number of validations, kind of parameters, age."""
    return _policy_cells(obj, len(obj.spec.validations), now)


def mutating_policy_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, number of mutations, kind of parameters, age."""
    return _policy_cells(obj, len(obj.spec.mutations), now)


def _policy_cells(obj: Any, count: int, now: datetime.datetime) -> list[Any]:
    kind = obj.spec.paramKind
    text = f"{kind.apiVersion}/{kind.kind}" if obj.spec.HasField("paramKind") else UNSET
    return [obj.metadata.name, count, text, object_age(obj, now)]


def admission_binding_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, policy, parameters, age."""
    reference = UNSET
    if obj.spec.HasField("paramRef"):
        ref = obj.spec.paramRef
        reference = f"{ref.namespace or '*'}/{ref.name}" if ref.name else selector_text(ref)
    return [obj.metadata.name, obj.spec.policyName, reference, object_age(obj, now)]


def api_service_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, service, whether available, age."""
    service = "Local"
    if obj.spec.HasField("service"):
        service = f"{obj.spec.service.namespace}/{obj.spec.service.name}"
    available = find_condition(obj.status.conditions, "Available")
    text = "Unknown"
    if available is not None:
        is_available = is_condition_true(obj.status.conditions, "Available")
        text = "True" if is_available else f"{available.status} ({available.reason})"
    return [obj.metadata.name, service, text, object_age(obj, now)]


def flow_schema_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, priority level, precedence, distinguisher, age, whether the level is missing."""
    dangling = find_condition(obj.status.conditions, "Dangling")
    distinguisher = obj.spec.distinguisherMethod.type if obj.spec.HasField("distinguisherMethod") else NONE
    return [
        obj.metadata.name,
        obj.spec.priorityLevelConfiguration.name,
        obj.spec.matchingPrecedence,
        distinguisher,
        object_age(obj, now),
        dangling.status if dangling is not None else "?",
    ]


def priority_level_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, type, shares, queues, age."""
    limited = obj.spec.limited
    shares: Any = limited.nominalConcurrencyShares if obj.spec.HasField("limited") else NONE
    queues: list[Any] = [NONE, NONE, NONE]
    if limited.limitResponse.HasField("queuing"):
        queuing = limited.limitResponse.queuing
        queues = [queuing.queues, queuing.handSize, queuing.queueLengthLimit]
    return [obj.metadata.name, obj.spec.type, shares, *queues, object_age(obj, now)]
