"""Other servers' groups put into this server's discovery documents. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tiphys_apiserver.aggregation.remotes import Remote, by_group

JSON = dict[str, Any]
# What a remote's own APIResourceList says, by group and version; absent where it did not answer.
ResourceLists = Mapping[tuple[str, str], Sequence[JSON]]


def api_group(name: str, remotes: Sequence[Remote], local: JSON | None) -> JSON:
    """One APIGroup: the local versions first, then the others'."""
    found: JSON = {"name": name, "versions": [], **(local or {})}
    known = {version["version"] for version in found["versions"]}
    others = [_group_version(remote) for remote in remotes if remote.version not in known]
    versions = [*found["versions"], *others]
    return {**found, "versions": versions, "preferredVersion": found.get("preferredVersion", versions[0])}


def _group_version(remote: Remote) -> JSON:
    return {"groupVersion": f"{remote.group}/{remote.version}", "version": remote.version}


def merge_groups(document: JSON, remotes: Iterable[Remote]) -> JSON:
    """APIGroupList with the others' groups behind the local ones."""
    found = by_group(remotes)
    groups = [
        api_group(group["name"], found.pop(group["name"]), group) if group["name"] in found else group
        for group in document["groups"]
    ]
    groups += [api_group(name, versions, None) for name, versions in found.items()]
    return {**document, "groups": groups}


def merge_aggregated(document: JSON, remotes: Iterable[Remote], lists: ResourceLists) -> JSON:
    """APIGroupDiscoveryList with the others' groups; a version whose server does not answer is stale and empty."""
    found = by_group(remotes)
    items = []
    for item in document["items"]:
        name = item["metadata"].get("name", "")
        known = {version["version"] for version in item["versions"]}
        more = [_version(remote, lists) for remote in found.pop(name, []) if remote.version not in known]
        items.append({**item, "versions": [*item["versions"], *more]} if more else item)
    for name, versions in found.items():
        metadata = {"name": name, "creationTimestamp": None}
        items.append({"metadata": metadata, "versions": [_version(remote, lists) for remote in versions]})
    return {**document, "items": items}


def _version(remote: Remote, lists: ResourceLists) -> JSON:
    listed = lists.get((remote.group, remote.version))
    if listed is None:
        return {"version": remote.version, "resources": [], "freshness": "Stale"}
    return {"version": remote.version, "resources": _resources(remote, listed), "freshness": "Current"}


def _resources(remote: Remote, listed: Sequence[JSON]) -> list[JSON]:
    """APIResource entries in the form of aggregated discovery; subresources under their resource."""
    found: dict[str, JSON] = {}
    for entry in sorted(listed, key=lambda entry: str(entry.get("name", "")).count("/")):
        name, _, sub = str(entry.get("name", "")).partition("/")
        kind = {
            "group": entry.get("group") or remote.group,
            "version": entry.get("version") or remote.version,
            "kind": entry.get("kind", ""),
        }
        scope = "Namespaced" if entry.get("namespaced") else "Cluster"
        verbs = list(entry.get("verbs") or [])
        if sub:
            parent = found.setdefault(name, {"resource": name, "scope": scope, "verbs": []})
            parent.setdefault("subresources", []).append({"subresource": sub, "responseKind": kind, "verbs": verbs})
            continue
        found[name] = {
            "resource": name,
            "responseKind": kind,
            "scope": scope,
            "singularResource": entry.get("singularName", ""),
            "verbs": verbs,
            **{key: entry[key] for key in ("shortNames", "categories") if entry.get(key)},
        }
    return list(found.values())


def merge_openapi_index(document: JSON, remotes: Iterable[Remote]) -> JSON:
    """The index of OpenAPI version 3 with the others' documents. They have no hash: they are never kept."""
    paths = dict(document["paths"])
    for remote in remotes:
        place = f"apis/{remote.group}/{remote.version}"
        paths.setdefault(place, {"serverRelativeURL": f"/openapi/v3/{place}"})
    return {**document, "paths": paths}
