"""The APIServices that name another server, read from the cache."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tiphys.api.apiregistration.v1.apiregistration_pb2 import APIService
from tiphys_apiserver.registry.objects import ObjectAccess

AVAILABLE = "Available"
_VERSION = re.compile(r"^v([1-9][0-9]*)(?:(alpha|beta)([1-9][0-9]*))?$")
_STAGES = {"": 2, "beta": 1, "alpha": 0}


@dataclass(frozen=True, slots=True)
class Remote:
    """One group-version of another server. name is the APIService's; priorities order discovery, high ones first."""

    name: str
    group: str
    version: str
    service: tuple[str, str]
    port: int
    ca_bundle: bytes
    insecure: bool
    group_priority: int
    version_priority: int

    @property
    def path(self) -> str:
        """Where its resources lie."""
        return f"/apis/{self.group}/{self.version}"

    @property
    def server_name(self) -> str:
        """Whom its certificate must name."""
        namespace, name = self.service
        return f"{name}.{namespace}.svc"


Remotes = Mapping[tuple[str, str], Remote]


def read_remote(api_service: Any) -> Remote | None:
    """What an APIService says of another server; None for one that this server answers itself."""
    spec = api_service.spec
    if not spec.HasField("service"):
        return None
    return Remote(
        name=api_service.metadata.name,
        group=spec.group,
        version=spec.version,
        service=(spec.service.namespace, spec.service.name),
        port=spec.service.port or 443,
        ca_bundle=spec.caBundle,
        insecure=spec.insecureSkipTLSVerify,
        group_priority=spec.groupPriorityMinimum,
        version_priority=spec.versionPriority,
    )


class RemoteTable:
    """All of them by group and version, read anew when an APIService changed."""

    def __init__(self, objects: ObjectAccess) -> None:
        self._objects = objects
        self._version = -1
        self._found: Remotes = {}

    async def current(self) -> Remotes:
        """Remotes as the cache has them now."""
        version = self._objects.version(APIService)
        if version != self._version or not version:
            listed = await self._objects.list(APIService)
            found = [remote for remote in map(read_remote, listed) if remote is not None]
            self._found = {(remote.group, remote.version): remote for remote in found}
            self._version = version
        return self._found


def by_group(remotes: Iterable[Remote]) -> dict[str, list[Remote]]:
    """Groups and versions in the order in which discovery names them."""
    groups: dict[str, list[Remote]] = {}
    for remote in remotes:
        groups.setdefault(remote.group, []).append(remote)
    names = sorted(groups, key=lambda name: (-max(remote.group_priority for remote in groups[name]), name))
    return {name: sorted(groups[name], key=_version_key) for name in names}


def _version_key(remote: Remote) -> tuple[Any, ...]:
    """High priority first, then the mature and young version: v2, v1, v1beta2, v1alpha1, foo.

    Source: apimachinery pkg/version/helpers.go.
    """
    match = _VERSION.match(remote.version)
    if match is None:
        return (-remote.version_priority, 1, 0, 0, 0, remote.version)
    major, stage, minor = int(match[1]), match[2] or "", int(match[3] or 0)
    return (-remote.version_priority, 0, -_STAGES[stage], -major, -minor, "")
