"""What other API servers and their users find here: whom to believe, and which group-versions are this server's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tiphys.api.apiregistration.v1.apiregistration_pb2 import APIService
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys_apimachinery.errors import AlreadyExists
from tiphys_apiserver.options import Options
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_apiserver.rest.discovery import GROUP_ORDER

# Read by extension API servers at their start.
# Source: kubernetes pkg/controlplane/controller/clusterauthenticationtrust.
AUTHENTICATION = ("kube-system", "extension-apiserver-authentication")
_AUTOMANAGED = "kube-aggregator.kubernetes.io/automanaged"
_HIGHEST = 18000
_VERSION_PRIORITY = 15


async def publish_authentication(objects: ObjectAccess, options: Options) -> None:
    """Bring the ConfigMap of authorities and header names to what the options say; none without an authority."""
    data = await asyncio.to_thread(_authentication, options)
    if not data:
        return
    namespace, name = AUTHENTICATION
    found = objects.get_nowait(ConfigMap, name, namespace)
    if found is None:
        made: Any = ConfigMap()
        made.metadata.namespace, made.metadata.name = namespace, name
        made.data.update(data)
        try:
            await objects.create(made)
            return
        except AlreadyExists:
            pass
    await objects.modify(ConfigMap, name, namespace, lambda stored: _update(stored, data))


def _update(stored: Any, data: dict[str, str]) -> None:
    stored.data.update(data)


def _authentication(options: Options) -> dict[str, str]:
    data: dict[str, str] = {}
    if options.client_ca_file is not None:
        data["client-ca-file"] = Path(options.client_ca_file).read_text()
    if options.requestheader_client_ca_file is not None:
        data["requestheader-client-ca-file"] = Path(options.requestheader_client_ca_file).read_text()
        data["requestheader-allowed-names"] = json.dumps(list(options.requestheader_allowed_names))
        data["requestheader-username-headers"] = json.dumps(list(options.requestheader_username_headers))
        data["requestheader-group-headers"] = json.dumps(list(options.requestheader_group_headers))
        data["requestheader-extra-headers-prefix"] = json.dumps(list(options.requestheader_extra_headers_prefix))
        if options.requestheader_uid_headers:
            data["requestheader-uid-headers"] = json.dumps(list(options.requestheader_uid_headers))
    return data


async def publish_local(objects: ObjectAccess, group_versions: Iterable[tuple[str, str]]) -> None:
    """An APIService for each group-version of this server that has none; others' changes to them stay."""
    rank = {name: i for i, name in enumerate(GROUP_ORDER)}
    for group, version in dict.fromkeys(group_versions):
        name = f"{version}.{group}"
        if objects.get_nowait(APIService, name) is not None:
            continue
        made: Any = APIService()
        made.metadata.name = name
        made.metadata.labels[_AUTOMANAGED] = "onstart"
        made.spec.group, made.spec.version = group, version
        made.spec.groupPriorityMinimum = _HIGHEST - 100 * rank.get(group, len(rank))
        made.spec.versionPriority = _VERSION_PRIORITY
        try:
            await objects.create(made)
        except AlreadyExists:
            # Another server over the same store was faster.
            continue
