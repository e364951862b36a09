"""The files of ConfigMaps, Secrets and the downward API, as values. Pure.

The three volumes of their own and the projected volume share this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.container_pb2 import Container
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys.api.core.v1.volume_pb2 import DownwardAPIVolumeFile, KeyToPath
from tiphys_kubelet.downward import DownwardError, field_value, resource_value
from tiphys_kubelet.objects import ObjectKey
from tiphys_kubelet.volumes.atomic_writer import FileContent
from tiphys_kubelet.volumes.interface import VolumeError, VolumeRequest

Files = dict[str, FileContent]
DEFAULT_MODE = 0o644


def config_map_files(
    request: VolumeRequest, name: str, items: Sequence[KeyToPath], mode: int, *, optional: bool
) -> Files:
    """Files of a ConfigMap. Raises VolumeError if it, or a key of it, is missing and not optional."""
    namespace = request.pod.metadata.namespace
    config_map = request.objects.get(ObjectKey(ConfigMap, namespace, name))
    if not isinstance(config_map, ConfigMap):
        if optional:
            return {}
        raise VolumeError(f'configmap "{name}" not found')
    data = {key: value.encode() for key, value in config_map.data.items()} | dict(config_map.binaryData)
    return _pick(data, items, mode, optional=optional)


def secret_files(request: VolumeRequest, name: str, items: Sequence[KeyToPath], mode: int, *, optional: bool) -> Files:
    """Files of a Secret. Raises VolumeError if it, or a key of it, is missing and not optional."""
    secret = request.objects.get(ObjectKey(Secret, request.pod.metadata.namespace, name))
    if not isinstance(secret, Secret):
        if optional:
            return {}
        raise VolumeError(f'secret "{name}" not found')
    return _pick(dict(secret.data), items, mode, optional=optional)


def _pick(data: Mapping[str, bytes], items: Sequence[KeyToPath], mode: int, *, optional: bool) -> Files:
    if not items:
        return {key: FileContent(value, mode) for key, value in data.items()}
    files: Files = {}
    for item in items:
        if item.key in data:
            files[item.path] = FileContent(data[item.key], item.mode if item.HasField("mode") else mode)
        elif not optional:
            raise VolumeError(f"references non-existent config key: {item.key}")
    return files


def downward_files(request: VolumeRequest, items: Iterable[DownwardAPIVolumeFile], mode: int) -> Files:
    """Files of the downward API. Raises VolumeError."""
    files: Files = {}
    for item in items:
        try:
            if item.HasField("fieldRef"):
                value = field_value(
                    request.pod, item.fieldRef.fieldPath, pod_ips=request.pod_ips, host_ips=request.host_ips
                )
            else:
                value = resource_value(request.pod, Container(), item.resourceFieldRef, request.allocatable)
        except DownwardError as err:
            raise VolumeError(str(err)) from err
        files[item.path] = FileContent(value.encode(), item.mode if item.HasField("mode") else mode)
    return files
