"""Projected volumes: several sources in one directory, among them the pod's token.

A token is asked for by the TokenRequest subresource, bound to the pod, and asked for anew when four fifths of its life,
or 24 hours, have passed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.volume_pb2 import ServiceAccountTokenProjection, Volume, VolumeProjection
from tiphys_component.clock import Clock
from tiphys_kubelet.volumes.atomic_writer import FileContent
from tiphys_kubelet.volumes.content import DEFAULT_MODE, Files, config_map_files, downward_files, secret_files
from tiphys_kubelet.volumes.interface import MountedVolume, VolumeError, VolumeRequest
from tiphys_kubelet.volumes.object_volumes import write_volume

DEFAULT_TOKEN_S = 3600
MAX_TOKEN_AGE = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Token:
    """A service account's token and its life."""

    value: str
    issued_at: datetime
    expires_at: datetime

    @property
    def refresh_at(self) -> datetime:
        """When to ask for the next one."""
        return self.issued_at + min((self.expires_at - self.issued_at) * 0.8, MAX_TOKEN_AGE)


# Asks the API server; raises VolumeError.
RequestToken = Callable[[Pod, str, int], Awaitable[Token]]


class ProjectedPlugin:
    """Keeps the tokens that it was given, so that writing a volume again does not ask again."""

    def __init__(self, clock: Clock, request_token: RequestToken) -> None:
        self._clock = clock
        self._request_token = request_token
        self._tokens: dict[tuple[Path, str], Token] = {}

    @property
    def name(self) -> str:
        """Kubernetes' name of the plugin."""
        return "kubernetes.io/projected"

    def supports(self, volume: Volume) -> bool:
        """The volume is projected."""
        return volume.volumeSource.HasField("projected")

    async def set_up(self, request: VolumeRequest) -> MountedVolume:
        """Gathers all sources and writes them at once; a later source wins over an earlier one."""
        source = request.volume.volumeSource.projected
        mode = source.defaultMode if source.HasField("defaultMode") else DEFAULT_MODE
        files: Files = {}
        refresh: list[datetime] = []
        for projection in source.sources:
            if projection.HasField("serviceAccountToken"):
                token = await self._token(request, projection.serviceAccountToken)
                refresh.append(token.refresh_at)
                path = projection.serviceAccountToken.path
                files[path] = _token_file(request, token, mode)
            else:
                files |= _files(request, projection, mode)
        await write_volume(request, files, self._clock, in_memory=True)
        return MountedVolume(request.path, refresh_at=min(refresh, default=None), read_only=True)

    async def tear_down(self, path: Path) -> None:
        """Forgets the tokens."""
        for key in [key for key in self._tokens if key[0] == path]:
            del self._tokens[key]

    async def _token(self, request: VolumeRequest, projection: ServiceAccountTokenProjection) -> Token:
        key = (request.path, projection.audience)
        known = self._tokens.get(key)
        if known is not None and self._clock.now() < known.refresh_at:
            return known
        lifetime = projection.expirationSeconds if projection.HasField("expirationSeconds") else DEFAULT_TOKEN_S
        token = await self._request_token(request.pod, projection.audience, lifetime)
        self._tokens[key] = token
        return token


def _token_file(request: VolumeRequest, token: Token, mode: int) -> FileContent:
    """Readable by whoever runs the pod: its one user, else the fsGroup, else as the volume's mode says.

    Source: the documented ownership of projected tokens.
    """
    users = {
        c.securityContext.runAsUser
        if c.securityContext.HasField("runAsUser")
        else request.pod.spec.securityContext.runAsUser
        for c in request.pod.spec.containers
        if c.securityContext.HasField("runAsUser") or request.pod.spec.securityContext.HasField("runAsUser")
    }
    if request.fs_group is not None:
        return FileContent(token.value.encode(), 0o600 | 0o040)
    if len(users) == 1:
        return FileContent(token.value.encode(), 0o600, uid=users.pop())
    return FileContent(token.value.encode(), mode)


def _files(request: VolumeRequest, projection: VolumeProjection, mode: int) -> Files:
    if projection.HasField("configMap"):
        config_map = projection.configMap
        name = config_map.localObjectReference.name
        return config_map_files(request, name, config_map.items, mode, optional=config_map.optional)
    if projection.HasField("secret"):
        secret = projection.secret
        name = secret.localObjectReference.name
        return secret_files(request, name, secret.items, mode, optional=secret.optional)
    if projection.HasField("downwardAPI"):
        return downward_files(request, projection.downwardAPI.items, mode)
    raise VolumeError(f"volume {request.volume.name}: a projected source is of a kind that is not supported")
