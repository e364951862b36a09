"""Discovery documents: which groups, versions and resources there are. Pure; made once from the scheme.

Shapes: APIVersions, APIGroupList, APIGroup, APIResourceList of meta/v1, and the aggregated
APIGroupDiscoveryList of apidiscovery.k8s.io/v2, as plain JSON dicts.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from tiphys_apimachinery.scheme import ResourceInfo, Subresource

JSON = dict[str, Any]

# The order in which clients look for a kind that several groups have; groups not named here follow by name.
GROUP_ORDER = (
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
)
# Versions from the most preferred on, where a group has several.
VERSION_ORDER = {"autoscaling": ("v2", "v1")}
_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")
# Groups whose objects are found out when they are asked for.
_NEVER_STORED = frozenset({"metrics.k8s.io"})
# Kinds that are stored as another version's, as (group, kind) -> (group, version).
_STORED_AS = {("events.k8s.io", "Event"): ("", "v1"), ("autoscaling", "HorizontalPodAutoscaler"): ("autoscaling", "v2")}


@dataclass(frozen=True, slots=True)
class Group:
    """One API group with its versions, the preferred one first."""

    name: str
    versions: tuple[str, ...]

    @property
    def preferred(self) -> JSON:
        """GroupVersionForDiscovery of the preferred version."""
        return group_version(self.name, self.versions[0])


def group_version(group: str, version: str) -> JSON:
    """GroupVersionForDiscovery."""
    return {"groupVersion": f"{group}/{version}" if group else version, "version": version}


def groups_of(resources: Iterable[ResourceInfo]) -> list[Group]:
    """The groups of the resources in discovery's order."""
    versions: dict[str, dict[str, None]] = {}
    for resource in resources:
        versions.setdefault(resource.group, {})[resource.version] = None
    rank = {name: i for i, name in enumerate(GROUP_ORDER)}
    names = sorted(versions, key=lambda name: (rank.get(name, len(rank)), name))
    return [Group(name, _ordered(name, versions[name])) for name in names]


def _ordered(group: str, versions: Iterable[str]) -> tuple[str, ...]:
    order = VERSION_ORDER.get(group, ())
    return tuple(sorted(versions, key=lambda v: (order.index(v) if v in order else len(order), _priority(v))))


def _priority(version: str) -> tuple[int, int, int, str]:
    """Stable versions first, then beta, then alpha, each from the newest on; others by name.

    Source: apimachinery pkg/version, CompareKubeAwareVersionStrings.
    """
    found = _VERSION.fullmatch(version)
    if found is None:
        return (3, 0, 0, version)
    stage = {None: 0, "beta": 1, "alpha": 2}[found[2]]
    return (stage, -int(found[1]), -int(found[3] or 0), version)


def storage_version_hash(resource: ResourceInfo) -> str:
    """Tells clients when the stored version changes: first 8 bytes of SHA-256, in base64."""
    group, version = _STORED_AS.get((resource.group, resource.kind), (resource.group, resource.stored_version))
    digest = hashlib.sha256(f"{group}/{version}/{resource.kind}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


def api_versions(server_address: str) -> JSON:
    """The document at /api."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    }


def api_group(group: Group, *, with_type: bool = True) -> JSON:
    """One APIGroup, as at /apis/GROUP and in the list."""
    head: JSON = {"kind": "APIGroup", "apiVersion": "v1"} if with_type else {}
    versions = [group_version(group.name, version) for version in group.versions]
    return {**head, "name": group.name, "versions": versions, "preferredVersion": group.preferred}


def api_group_list(groups: Iterable[Group]) -> JSON:
    """The document at /apis; the core group is not in it."""
    listed = [api_group(group, with_type=False) for group in groups if group.name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}


def api_resource_list(group: str, version: str, resources: Iterable[ResourceInfo]) -> JSON:
    """The document at /api/v1 or /apis/GROUP/VERSION."""
    entries: list[JSON] = []
    for resource in sorted(resources, key=lambda r: r.plural):
        if (resource.group, resource.version) != (group, version):
            continue
        entries.append(_api_resource(resource))
        for name in sorted(resource.subresources):
            entries.append(_api_subresource(resource, resource.subresources[name]))
    document: JSON = {"kind": "APIResourceList"}
    if group:
        document["apiVersion"] = "v1"
    return {**document, "groupVersion": group_version(group, version)["groupVersion"], "resources": entries}


def _api_resource(resource: ResourceInfo) -> JSON:
    entry: JSON = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    if "get" in resource.verbs and resource.group not in _NEVER_STORED:
        entry["storageVersionHash"] = storage_version_hash(resource)
    return entry


def _api_subresource(resource: ResourceInfo, sub: Subresource) -> JSON:
    entry: JSON = {
        "name": f"{resource.plural}/{sub.name}",
        "singularName": "",
        "namespaced": resource.namespaced,
    }
    if sub.version:
        entry |= {"group": sub.group, "version": sub.version}
    return {**entry, "kind": sub.kind, "verbs": list(sub.verbs)}


def aggregated(resources: Iterable[ResourceInfo], *, legacy: bool) -> JSON:
    """APIGroupDiscoveryList: everything of /api (legacy) or of /apis in one answer."""
    known: dict[tuple[str, str], list[ResourceInfo]] = {}
    for resource in resources:
        known.setdefault((resource.group, resource.version), []).append(resource)
    items = [
        {
            "metadata": {"name": group.name, "creationTimestamp": None} if group.name else {"creationTimestamp": None},
            "versions": [_aggregated_version(version, known[group.name, version]) for version in group.versions],
        }
        for group in groups_of(chain.from_iterable(known.values()))
        if (group.name == "") == legacy
    ]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _aggregated_version(version: str, found: Iterable[ResourceInfo]) -> JSON:
    return {
        "version": version,
        "resources": [_aggregated_resource(r) for r in sorted(found, key=lambda r: r.plural)],
        "freshness": "Current",
    }


def _kind(group: str, version: str, kind: str) -> JSON:
    return {"group": group, "version": version, "kind": kind}


def _aggregated_resource(resource: ResourceInfo) -> JSON:
    entry: JSON = {
        "resource": resource.plural,
        "responseKind": _kind(resource.group, resource.version, resource.kind),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    subs: Mapping[str, Subresource] = resource.subresources
    if subs:
        entry["subresources"] = [
            {
                "subresource": name,
                "responseKind": _kind(
                    subs[name].group if subs[name].version else resource.group,
                    subs[name].version or resource.version,
                    subs[name].kind,
                ),
                "verbs": list(subs[name].verbs),
            }
            for name in sorted(subs)
        ]
    return entry
