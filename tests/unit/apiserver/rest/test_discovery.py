"""Discovery: the shapes that clients know, and exactly the resources of the fact table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiphys_apimachinery.scheme import load_default
from tiphys_apiserver.rest import discovery

FACTS = json.loads((Path(__file__).parents[4] / "tests" / "conformance" / "contracts" / "resources.json").read_text())
STABLE = [r for r in FACTS["resources"] if "beta" not in r["version"] and "alpha" not in r["version"]]
RESOURCES = load_default().resources()


def test_A3_every_stable_resource_is_listed_with_its_verbs() -> None:
    for fact in STABLE:
        document = discovery.api_resource_list(fact["group"], fact["version"], RESOURCES)
        found = {entry["name"]: entry for entry in document["resources"]}
        entry = found[fact["resource"]]
        assert entry["verbs"] == sorted(fact["verbs"])
        assert entry.get("shortNames", []) == fact.get("shortNames", [])
        for name, sub in (fact.get("subresources") or {}).items():
            assert found[f"{fact['resource']}/{name}"]["kind"] == sub["kind"]


def test_groups_come_in_the_known_order() -> None:
    # Kubernetes leaves the last one to a server of its own.
    order = [*(g["group"] for g in FACTS["groups"]), "metrics.k8s.io"]
    names = [g.name for g in discovery.groups_of(RESOURCES)]
    assert names == sorted(names, key=order.index)


def test_autoscaling_prefers_its_second_version() -> None:
    group = next(g for g in discovery.groups_of(RESOURCES) if g.name == "autoscaling")
    assert discovery.api_group(group)["preferredVersion"] == {"groupVersion": "autoscaling/v2", "version": "v2"}


@pytest.mark.parametrize(
    ("group", "version", "plural", "wanted"),
    [
        ("", "v1", "pods", "xPOwRZ+Yhw8="),
        ("events.k8s.io", "v1", "events", "r2yiGXH7wu8="),
        ("autoscaling", "v1", "horizontalpodautoscalers", "qwQve8ut294="),
    ],
    ids=["pods", "events", "hpa"],
)
def test_storage_version_hash_is_the_known_one(group: str, version: str, plural: str, wanted: str) -> None:
    resource = load_default().by_resource(group, version, plural)
    assert resource is not None
    assert discovery.storage_version_hash(resource) == wanted


def test_A4_aggregated_discovery_has_all_groups_but_core() -> None:
    document: dict[str, Any] = discovery.aggregated(RESOURCES, legacy=False)
    assert [i["metadata"]["name"] for i in document["items"]] == [
        g.name for g in discovery.groups_of(RESOURCES) if g.name
    ]
    core = discovery.aggregated(RESOURCES, legacy=True)["items"][0]["versions"][0]
    pods = next(r for r in core["resources"] if r["resource"] == "pods")
    assert pods["responseKind"] == {"group": "", "version": "v1", "kind": "Pod"}
    scale = {"group": "policy", "version": "v1", "kind": "Eviction"}
    assert next(s for s in pods["subresources"] if s["subresource"] == "eviction")["responseKind"] == scale
