"""Server-side apply with stock kubectl, after years of applying on the client's side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import Kubectl

pytestmark = pytest.mark.containerd

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: applied, labels: {tier: front}}
spec:
  replicas: 0
  selector: {matchLabels: {app: applied}}
  template:
    metadata: {labels: {app: applied}}
    spec:
      containers:
      - {name: web, image: "tiphys.dev/httpd:1", ports: [{containerPort: 8080}]}
"""


def managers(obj: Any) -> set[tuple[str, str]]:
    return {(entry["manager"], entry["operation"]) for entry in obj["metadata"].get("managedFields", [])}


def test_A30_kubectl_moves_from_the_clients_side_to_the_servers(kubectl: Kubectl, tmp_path: Path) -> None:
    manifest = tmp_path / "web.yaml"
    manifest.write_text(WEB)
    try:
        _move(kubectl, manifest)
    finally:
        kubectl("delete", "deployment/applied", "--ignore-not-found")


def _move(kubectl: Kubectl, manifest: Path) -> None:
    get = (
        ("get", "deployment/applied", "--show-managed-fields")
        if "1.20" not in kubectl.binary.name
        else ("get", "deployment/applied")
    )
    kubectl("apply", "-f", str(manifest))
    assert ("kubectl-client-side-apply", "Update") in managers(kubectl.json(*get))
    manifest.write_text(WEB.replace("tier: front", "tier: back"))
    assert "serverside-applied" in kubectl("apply", "--server-side", "-f", str(manifest))
    manifest.write_text(WEB.replace(", labels: {tier: front}", ""))
    kubectl("apply", "--server-side", "-f", str(manifest))
    obj = kubectl.json(*get)
    assert ("kubectl", "Apply") in managers(obj)
    if "1.20" not in kubectl.binary.name:
        # Newer ones hand over what they applied on the client's side: what they let go of is gone.
        assert "labels" not in obj["metadata"]
    kubectl("scale", "deployment/applied", "--replicas=1")
    refused = kubectl("apply", "--server-side", "-f", str(manifest), check=False)
    # Scaling names no manager, so the program's own name counts.
    assert f'conflict with "{kubectl.binary.name}" with subresource "scale" using apps/v1' in refused
    assert ".spec.replicas" in refused
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(manifest))
    assert kubectl.json(*get)["spec"]["replicas"] == 0
