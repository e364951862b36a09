"""A kopf operator as users write them: it answers each Shelf with a ConfigMap, and tells of it in the status."""

from __future__ import annotations

from typing import Any

import kopf
from kubernetes import client, config

config.load_kube_config()


@kopf.on.create("example.com", "v1", "shelves")
def create(spec: Any, name: str, namespace: str | None, **_: Any) -> dict[str, Any]:
    """Make the ConfigMap; what is returned is written to the status."""
    assert namespace is not None
    body = {"metadata": {"name": name}, "data": {"books": str(spec.get("books", 0))}}
    kopf.adopt(body)
    made = client.CoreV1Api().create_namespaced_config_map(namespace, body)  # type: ignore[arg-type]  # it takes dicts too
    assert made.metadata is not None
    return {"configMap": made.metadata.name}


@kopf.on.field("example.com", "v1", "shelves", field="spec.books")
def resize(old: Any, new: Any, name: str, namespace: str | None, **_: Any) -> None:
    """Bring the ConfigMap up to date."""
    assert namespace is not None
    if old is not None:
        client.CoreV1Api().patch_namespaced_config_map(name, namespace, {"data": {"books": str(new)}})


@kopf.on.delete("example.com", "v1", "shelves")
def delete(name: str, namespace: str | None, **_: Any) -> None:
    """Clear up: nobody collects garbage in this test."""
    assert namespace is not None
    client.CoreV1Api().delete_namespaced_config_map(name, namespace)
