"""Rules of a pod's volumes that take more than one field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.core.container_validation import (
    local_path_errors,
    validate_field_ref,
    validate_resource_ref,
)

_MODE_TEXT = "must be a number between 0 and 0777 (octal), both inclusive"
_PROJECTIONS = ("secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate")
_MIN_TOKEN_S, _MAX_TOKEN_S = 600, 1 << 32


def validate_volumes(volumes: Any, path: str) -> Iterator[FieldError]:
    """Faults of all volumes of a pod."""
    names: set[str] = set()
    for index, volume in enumerate(volumes):
        where = f"{path}[{index}]"
        if volume.name in names:
            yield FieldError.duplicate(f"{where}.name", volume.name)
        names.add(volume.name)
        sources = [member.name for member, _ in volume.volumeSource.ListFields()]
        if not sources:
            yield FieldError.required(where, "must specify a volume type")
        # In the order of the schema; the first counts, as Kubernetes does.
        for extra in sources[1:]:
            yield FieldError.forbidden(f"{where}.{extra}", "may not specify more than 1 volume type")
        yield from _source(volume.volumeSource, where)


def _source(source: Any, path: str) -> Iterator[FieldError]:
    if source.HasField("hostPath") and ".." in source.hostPath.path.split("/"):
        yield FieldError.invalid(f"{path}.hostPath.path", source.hostPath.path, "must not contain '..'")
    if source.HasField("hostPath") and not source.hostPath.path:
        yield FieldError.required(f"{path}.hostPath.path")
    if source.HasField("secret"):
        if not source.secret.secretName:
            yield FieldError.required(f"{path}.secret.secretName")
        yield from _files(source.secret, f"{path}.secret")
    if source.HasField("configMap"):
        if not source.configMap.localObjectReference.name:
            yield FieldError.required(f"{path}.configMap.name")
        yield from _files(source.configMap, f"{path}.configMap")
    if source.HasField("downwardAPI"):
        yield from _downward(source.downwardAPI, f"{path}.downwardAPI")
    if source.HasField("projected"):
        yield from _projected(source.projected, f"{path}.projected")
    if source.HasField("nfs"):
        for name in ("server", "path"):
            if not getattr(source.nfs, name):
                yield FieldError.required(f"{path}.nfs.{name}")
        if source.nfs.path and not source.nfs.path.startswith("/"):
            yield FieldError.invalid(f"{path}.nfs.path", source.nfs.path, "must be an absolute path")
    if source.HasField("persistentVolumeClaim") and not source.persistentVolumeClaim.claimName:
        yield FieldError.required(f"{path}.persistentVolumeClaim.claimName")
    if source.HasField("csi") and not source.csi.driver:
        yield FieldError.required(f"{path}.csi.driver")


def _mode(value: int, path: str) -> Iterator[FieldError]:
    if not 0 <= value <= 0o777:
        yield FieldError.invalid(path, value, _MODE_TEXT)


def _files(source: Any, path: str) -> Iterator[FieldError]:
    if "defaultMode" in source.DESCRIPTOR.fields_by_name:
        yield from _mode(source.defaultMode, f"{path}.defaultMode")
    for index, item in enumerate(source.items):
        where = f"{path}.items[{index}]"
        if not item.key:
            yield FieldError.required(f"{where}.key")
        if not item.path:
            yield FieldError.required(f"{where}.path")
        yield from _inner_path(item.path, f"{where}.path")
        yield from _mode(item.mode, f"{where}.mode")


def _inner_path(value: str, path: str) -> Iterator[FieldError]:
    yield from local_path_errors(value, path)
    if value.startswith("..") and ".." not in value.split("/"):
        yield FieldError.invalid(path, value, "must not start with '..'")


def _downward(source: Any, path: str) -> Iterator[FieldError]:
    if "defaultMode" in source.DESCRIPTOR.fields_by_name:
        yield from _mode(source.defaultMode, f"{path}.defaultMode")
    for index, item in enumerate(source.items):
        where = f"{path}.items[{index}]"
        if not item.path:
            yield FieldError.required(f"{where}.path")
        yield from _inner_path(item.path, f"{where}.path")
        yield from _mode(item.mode, f"{where}.mode")
        field, resource = item.HasField("fieldRef"), item.HasField("resourceFieldRef")
        if field and resource:
            yield FieldError.invalid(
                where, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"
            )
        elif field:
            yield from validate_field_ref(item.fieldRef, f"{where}.fieldRef")
        elif resource:
            if not item.resourceFieldRef.containerName:
                yield FieldError.required(f"{where}.resourceFieldRef.containerName")
            yield from validate_resource_ref(item.resourceFieldRef, f"{where}.resourceFieldRef")
        else:
            yield FieldError.required(where, "one of fieldRef and resourceFieldRef is required")


def _projected(source: Any, path: str) -> Iterator[FieldError]:
    yield from _mode(source.defaultMode, f"{path}.defaultMode")
    paths: set[str] = set()
    for index, projection in enumerate(source.sources):
        where = f"{path}.sources[{index}]"
        found = [name for name in _PROJECTIONS if projection.HasField(name)]
        if not found:
            yield FieldError.required(where, f"exactly one of [{', '.join(_PROJECTIONS)}] required")
        for extra in found[1:]:
            yield FieldError.forbidden(f"{where}.{extra}", "may not specify more than 1 volume type per source")
        yield from _projection(projection, where)
        for target in _targets(projection):
            if target in paths:
                yield FieldError.invalid(path, target, "conflicting duplicate paths")
            paths.add(target)


def _projection(projection: Any, path: str) -> Iterator[FieldError]:
    for name in ("secret", "configMap"):
        if projection.HasField(name):
            part = getattr(projection, name)
            if not part.localObjectReference.name:
                yield FieldError.required(f"{path}.{name}.name")
            yield from _files(part, f"{path}.{name}")
    if projection.HasField("downwardAPI"):
        yield from _downward(projection.downwardAPI, f"{path}.downwardAPI")
    if projection.HasField("serviceAccountToken"):
        token = projection.serviceAccountToken
        seconds = token.expirationSeconds
        where = f"{path}.serviceAccountToken"
        if seconds < _MIN_TOKEN_S:
            yield FieldError.invalid(
                f"{where}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"
            )
        if seconds > _MAX_TOKEN_S:
            yield FieldError.invalid(
                f"{where}.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds"
            )
        if not token.path:
            yield FieldError.required(f"{where}.path")
        yield from _inner_path(token.path, f"{where}.path")


def _targets(projection: Any) -> Iterator[str]:
    for name in ("secret", "configMap", "downwardAPI"):
        if projection.HasField(name):
            yield from (item.path for item in getattr(projection, name).items)
    if projection.HasField("serviceAccountToken"):
        yield projection.serviceAccountToken.path
