"""Rules of containers that take more than one field. What one field says alone is in the schema.

Messages follow Kubernetes pkg/apis/core/validation.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.core.resource_validation import validate_requirements

ALWAYS = "Always"
_POD_FIELDS = frozenset(
    {
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    }
)
_SUBSCRIPT = re.compile(r"(metadata\.(?:labels|annotations))\['([^']+)'\]")
_CONTAINER_RESOURCES = (
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
)
_ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_ONLY_SIDECARS = "may not be set for init containers without restartPolicy=Always"


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What rules of a container need to know of its pod. volumes maps names to whether they are block-capable."""

    volumes: Collection[str]
    host_network: bool


def validate_container(container: Any, path: str, pod: PodFacts) -> Iterator[FieldError]:
    """Faults that every sort of container may have."""
    if container.image != container.image.strip():
        yield FieldError.invalid(f"{path}.image", container.image, "must not have leading or trailing whitespace")
    yield from _ports(container, path, pod)
    yield from _env(container, path)
    yield from _mounts(container, path, pod)
    yield from validate_requirements(container.resources, f"{path}.resources")
    if container.HasField("securityContext"):
        yield from _security(container.securityContext, f"{path}.securityContext")


def validate_run_actions(container: Any, path: str) -> Iterator[FieldError]:
    """Faults of probes and of the actions at start and stop."""
    for name in ("postStart", "preStop"):
        if container.HasField("lifecycle") and container.lifecycle.HasField(name):
            yield from _one_handler(getattr(container.lifecycle, name), f"{path}.lifecycle.{name}")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if not container.HasField(name):
            continue
        probe = getattr(container, name)
        yield from _one_handler(probe.handler, f"{path}.{name}")
        if name != "readinessProbe" and probe.successThreshold != 1:
            yield FieldError.invalid(f"{path}.{name}.successThreshold", probe.successThreshold, "must be 1")
        if name == "readinessProbe" and probe.HasField("terminationGracePeriodSeconds"):
            yield FieldError.invalid(
                f"{path}.{name}.terminationGracePeriodSeconds",
                probe.terminationGracePeriodSeconds,
                "must not be set for readinessProbes",
            )


def validate_init_container(container: Any, path: str) -> Iterator[FieldError]:
    """Faults of init containers: only those that go on running have probes and actions."""
    if container.restartPolicy == ALWAYS:
        yield from validate_run_actions(container, path)
        return
    for name in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
        if container.HasField(name):
            yield FieldError.forbidden(f"{path}.{name}", _ONLY_SIDECARS)


def host_port_conflicts(containers: list[tuple[str, Any]]) -> Iterator[FieldError]:
    """Host ports that two containers of one pod ask for. containers come with their paths."""
    seen: set[str] = set()
    for path, container in containers:
        for index, port in enumerate(container.ports):
            if not port.hostPort:
                continue
            key = f"{port.protocol}/{port.hostIP}/{port.hostPort}"
            if key in seen:
                yield FieldError.duplicate(f"{path}.ports[{index}].hostPort", key)
            seen.add(key)


def _ports(container: Any, path: str, pod: PodFacts) -> Iterator[FieldError]:
    names: set[str] = set()
    for index, port in enumerate(container.ports):
        where = f"{path}.ports[{index}]"
        if port.name:
            if port.name in names:
                yield FieldError.duplicate(f"{where}.name", port.name)
            names.add(port.name)
        if pod.host_network and port.hostPort != port.containerPort:
            yield FieldError.invalid(
                f"{where}.containerPort", port.containerPort, "must match `hostPort` when `hostNetwork` is true"
            )


def _env(container: Any, path: str) -> Iterator[FieldError]:
    for index, variable in enumerate(container.env):
        if variable.HasField("valueFrom"):
            yield from _env_source(variable, f"{path}.env[{index}].valueFrom")
    for index, source in enumerate(container.envFrom):
        where = f"{path}.envFrom[{index}]"
        found = [name for name in ("configMapRef", "secretRef") if source.HasField(name)]
        if not found:
            yield FieldError.invalid(where, "", "must specify one of: `configMapRef` or `secretRef`")
        elif len(found) > 1:
            yield FieldError.invalid(where, "", "may not have more than one field specified at a time")
        elif not getattr(source, found[0]).localObjectReference.name:
            yield FieldError.required(f"{where}.{found[0]}.name")


def _env_source(variable: Any, path: str) -> Iterator[FieldError]:
    source = variable.valueFrom
    found = [name for name in _ENV_SOURCES if source.HasField(name)]
    if not found:
        yield FieldError.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        )
        return
    if variable.value:
        yield FieldError.invalid(path, "", "may not be specified when `value` is not empty")
    if len(found) > 1:
        yield FieldError.invalid(path, "", "may not have more than one field specified at a time")
    if source.HasField("fieldRef"):
        yield from validate_field_ref(source.fieldRef, f"{path}.fieldRef")
    if source.HasField("resourceFieldRef"):
        yield from validate_resource_ref(source.resourceFieldRef, f"{path}.resourceFieldRef")


def validate_field_ref(reference: Any, path: str) -> Iterator[FieldError]:
    """Faults of a reference to a field of the pod, as env and downwardAPI make it."""
    field_path = reference.fieldPath
    if not field_path or field_path in _POD_FIELDS:
        return
    if _SUBSCRIPT.fullmatch(field_path) or field_path in ("metadata.labels", "metadata.annotations"):
        return
    supported = sorted(_POD_FIELDS)
    yield FieldError.not_supported(f"{path}.fieldPath", field_path, supported)


def validate_resource_ref(reference: Any, path: str) -> Iterator[FieldError]:
    """Faults of a reference to a container's request or limit."""
    resource = reference.resource
    known = resource in _CONTAINER_RESOURCES or resource.startswith(("limits.hugepages-", "requests.hugepages-"))
    if resource and not known:
        yield FieldError.not_supported(f"{path}.resource", resource, _CONTAINER_RESOURCES)


def _mounts(container: Any, path: str, pod: PodFacts) -> Iterator[FieldError]:
    paths: set[str] = set()
    for index, mount in enumerate(container.volumeMounts):
        where = f"{path}.volumeMounts[{index}]"
        if mount.name and mount.name not in pod.volumes:
            yield FieldError.not_found(f"{where}.name", mount.name)
        if mount.mountPath:
            if mount.mountPath in paths:
                yield FieldError.invalid(f"{where}.mountPath", mount.mountPath, "must be unique")
            paths.add(mount.mountPath)
        for name in ("subPath", "subPathExpr"):
            value = getattr(mount, name)
            if value:
                yield from local_path_errors(value, f"{where}.{name}")
        if mount.subPath and mount.subPathExpr:
            yield FieldError.invalid(
                f"{where}.subPathExpr", mount.subPathExpr, "subPathExpr and subPath are mutually exclusive"
            )
    devices: set[str] = set()
    for index, device in enumerate(container.volumeDevices):
        where = f"{path}.volumeDevices[{index}]"
        if device.name and device.name not in pod.volumes:
            yield FieldError.not_found(f"{where}.name", device.name)
        if device.devicePath in devices:
            yield FieldError.invalid(f"{where}.devicePath", device.devicePath, "must be unique")
        devices.add(device.devicePath)


def local_path_errors(value: str, path: str) -> Iterator[FieldError]:
    """Faults of a path that must stay inside: relative, and never upwards."""
    if value.startswith("/"):
        yield FieldError.invalid(path, value, "must be a relative path")
    if ".." in value.split("/"):
        yield FieldError.invalid(path, value, "must not contain '..'")


def _security(context: Any, path: str) -> Iterator[FieldError]:
    if not context.HasField("allowPrivilegeEscalation") or context.allowPrivilegeEscalation:
        return
    if context.privileged:
        yield FieldError.invalid(path, "", "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
    if context.HasField("capabilities") and "CAP_SYS_ADMIN" in context.capabilities.add:
        yield FieldError.invalid(
            path, "", "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
        )


def _one_handler(handler: Any, path: str) -> Iterator[FieldError]:
    known = handler.DESCRIPTOR.fields_by_name
    found = [name for name in _HANDLERS if name in known and handler.HasField(name)]
    if not found:
        yield FieldError.required(path, "must specify a handler type")
    for name in found[1:]:
        yield FieldError.forbidden(f"{path}.{name}", "may not specify more than 1 handler type")
    for name in ("httpGet", "tcpSocket"):
        if name in found:
            yield from _handler_port(getattr(handler, name).port, f"{path}.{name}.port")
    if "grpc" in found and not 1 <= handler.grpc.port <= 65535:
        yield FieldError.invalid(f"{path}.grpc.port", handler.grpc.port, "must be between 1 and 65535, inclusive")


def _handler_port(port: Any, path: str) -> Iterator[FieldError]:
    if port.type == 0 and not 1 <= port.intVal <= 65535:
        yield FieldError.invalid(path, port.intVal, "must be between 1 and 65535, inclusive")
