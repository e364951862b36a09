"""Cells of the core group, pods and events excepted."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any, Final

from tiphys_apimachinery.codec.cells.text import (
    NONE,
    UNKNOWN,
    UNSET,
    container_images,
    container_names,
    first_of,
    joined,
    labels_text,
    object_age,
    optional,
)
from tiphys_apimachinery.codec.special import quantity_text
from tiphys_apimachinery.meta import find_condition

_ACCESS_MODES: Final = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}
_CLASS_ANNOTATION: Final = "volume.beta.kubernetes.io/storage-class"
_ROLE_PREFIX: Final = "node-role.kubernetes.io/"
_ROLE_LABEL: Final = "kubernetes.io/role"


def component_status_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, status, message, error."""
    healthy = find_condition(obj.conditions, "Healthy")
    if healthy is None:
        return [obj.metadata.name, "Unknown", "", ""]
    text = {"True": "Healthy", "False": "Unhealthy"}.get(healthy.status, "Unknown")
    return [obj.metadata.name, text, healthy.message, healthy.error]


def config_map_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, number of keys, age."""
    return [obj.metadata.name, len(obj.data) + len(obj.binaryData), object_age(obj, now)]


def secret_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, type, number of keys, age."""
    return [obj.metadata.name, obj.type, len(obj.data), object_age(obj, now)]


def endpoints_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, addresses with ports, age."""
    addresses: list[str] = []
    for subset in obj.subsets:
        if not subset.ports:
            addresses += [address.ip for address in subset.addresses]
        for port in subset.ports:
            addresses += [_host_port(address.ip, port.port) for address in subset.addresses]
    return [obj.metadata.name, first_of(addresses, 3, empty=NONE), object_age(obj, now)]


def _host_port(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def namespace_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, phase, age."""
    return [obj.metadata.name, obj.status.phase, object_age(obj, now)]


def node_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, status, roles, age, version, addresses, system."""
    ready = find_condition(obj.status.conditions, "Ready")
    status = "Unknown" if ready is None else "Ready" if ready.status == "True" else "NotReady"
    if obj.spec.unschedulable:
        status += ",SchedulingDisabled"
    info = obj.status.nodeInfo
    return [
        obj.metadata.name,
        status,
        joined(_roles(obj.metadata.labels), empty=NONE),
        object_age(obj, now),
        info.kubeletVersion,
        _address(obj, "InternalIP"),
        _address(obj, "ExternalIP"),
        info.osImage or UNKNOWN,
        info.kernelVersion or UNKNOWN,
        info.containerRuntimeVersion or UNKNOWN,
    ]


def _roles(labels: Any) -> list[str]:
    roles = {label.removeprefix(_ROLE_PREFIX) for label in labels if label.startswith(_ROLE_PREFIX)}
    roles.add(labels.get(_ROLE_LABEL, ""))
    return sorted(role for role in roles if role)


def _address(node: Any, kind: str) -> str:
    return next((address.address for address in node.status.addresses if address.type == kind), NONE)


def persistent_volume_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, capacity, modes, policy, status, claim, classes, reason, age, mode."""
    claim = obj.spec.claimRef
    return [
        obj.metadata.name,
        _storage(obj.spec.capacity),
        _modes(obj.spec.accessModes),
        obj.spec.persistentVolumeReclaimPolicy,
        _phase(obj),
        f"{claim.namespace}/{claim.name}" if obj.spec.HasField("claimRef") else "",
        _storage_class(obj),
        optional(obj.spec, "volumeAttributesClassName", UNSET),
        obj.status.reason,
        object_age(obj, now),
        optional(obj.spec, "volumeMode", UNSET),
    ]


def persistent_volume_claim_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, status, volume, capacity, modes, classes, age, mode."""
    is_bound = bool(obj.spec.volumeName)
    return [
        obj.metadata.name,
        _phase(obj),
        obj.spec.volumeName,
        _storage(obj.status.capacity) if is_bound else "",
        _modes(obj.status.accessModes) if is_bound else "",
        _storage_class(obj),
        optional(obj.spec, "volumeAttributesClassName", UNSET),
        object_age(obj, now),
        optional(obj.spec, "volumeMode", UNSET),
    ]


def _phase(obj: Any) -> str:
    phase: str = obj.status.phase
    return "Terminating" if obj.metadata.HasField("deletionTimestamp") else phase


def _storage(capacity: Any) -> str:
    return quantity_text(capacity["storage"].string) if "storage" in capacity else "0"


def _modes(modes: Iterable[str]) -> str:
    return ",".join(short for mode, short in _ACCESS_MODES.items() if mode in modes)


def _storage_class(obj: Any) -> str:
    name: str = obj.metadata.annotations.get(_CLASS_ANNOTATION, obj.spec.storageClassName)
    return name


def pod_template_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, containers, images, labels."""
    spec = obj.template.spec
    labels = labels_text(obj.template.metadata.labels)
    return [obj.metadata.name, container_names(spec), container_images(spec), labels]


def replication_controller_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, counts, age, containers, images, selector."""
    spec = obj.spec.template.spec
    return [
        obj.metadata.name,
        obj.spec.replicas,
        obj.status.replicas,
        obj.status.readyReplicas,
        object_age(obj, now),
        container_names(spec),
        container_images(spec),
        labels_text(obj.spec.selector),
    ]


def resource_quota_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, requests, limits, age."""
    requests: list[str] = []
    limits: list[str] = []
    for name in sorted(obj.status.hard):
        used = obj.status.used[name].string if name in obj.status.used else ""
        text = f"{name}: {quantity_text(used)}/{quantity_text(obj.status.hard[name].string)}"
        (limits if name.startswith("limits.") else requests).append(text)
    return [obj.metadata.name, ", ".join(requests), ", ".join(limits), object_age(obj, now)]


def service_account_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, age."""
    return [obj.metadata.name, object_age(obj, now)]


def service_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, type, addresses, ports, age, selector."""
    spec = obj.spec
    cluster_ips = list(spec.clusterIPs) or [spec.clusterIP]
    ports = [f"{p.port}:{p.nodePort}/{p.protocol}" if p.nodePort else f"{p.port}/{p.protocol}" for p in spec.ports]
    return [
        obj.metadata.name,
        spec.type,
        cluster_ips[0] or NONE,
        _external_ip(obj),
        joined(ports, empty=NONE),
        object_age(obj, now),
        labels_text(spec.selector),
    ]


def _external_ip(service: Any) -> str:
    spec = service.spec
    if spec.type == "ExternalName":
        name: str = spec.externalName
        return name
    if spec.type == "LoadBalancer":
        addresses = load_balancer_text(service.status.loadBalancer)
        return joined([*([addresses] if addresses else []), *spec.externalIPs], empty="<pending>")
    return joined(spec.externalIPs, empty=NONE)


def load_balancer_text(status: Any) -> str:
    """Addresses of a load balancer, or its host names, as a sorted set."""
    return ",".join(sorted({entry.ip or entry.hostname for entry in status.ingress} - {""}))
