"""Custom resources with stock kubectl, both versions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Kubectl, eventually

pytestmark = pytest.mark.containerd

DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, kind: CronTab, shortNames: [ct], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: What is wanted.
            properties:
              cronSpec: {type: string, description: When it runs.}
              replicas: {type: integer, default: 1}
          status: {type: object, properties: {replicas: {type: integer}}}
"""
NAME = "crd/crontabs.stable.example.com"
NIGHTLY = """
apiVersion: stable.example.com/v1
kind: CronTab
metadata: {name: nightly}
spec: {cronSpec: "* 0"}
"""


@pytest.fixture
def crontabs(kubectl: Kubectl) -> Iterator[Kubectl]:
    """CronTab is defined."""
    kubectl("apply", "-f", "-", stdin=DEFINITION)
    kubectl("wait", "--for=condition=Established", NAME, "--timeout=10s")
    try:
        yield kubectl
    finally:
        kubectl("delete", NAME, "--ignore-not-found", "--wait=true")


def test_A37_kubectl_works_on_custom_objects_as_on_others(crontabs: Kubectl) -> None:
    assert "created" in crontabs("apply", "-f", "-", stdin=NIGHTLY)
    assert "unchanged" in crontabs("apply", "-f", "-", stdin=NIGHTLY)
    assert "configured" in crontabs("apply", "-f", "-", stdin=NIGHTLY.replace("* 0", "* 1"))
    assert "scaled" in crontabs("scale", "--replicas=3", "ct/nightly")
    assert crontabs("get", "ct", "--no-headers").split() == ["nightly", "*", "1", "3"]
    assert "crontab.stable.example.com/nightly" in crontabs("get", "all")
    assert "labeled" in crontabs("label", "ct/nightly", "a=b")
    assert "Cron Spec:  * 1" in crontabs("describe", "ct", "nightly")
    assert "deleted" in crontabs("delete", "ct", "nightly")


def test_A37_kubectl_knows_the_schema(crontabs: Kubectl) -> None:
    assert "When it runs." in crontabs("explain", "crontabs.spec.cronSpec")
    refused = crontabs("apply", "-f", "-", stdin=NIGHTLY.replace("cronSpec", "cronnSpec"), check=False)
    assert "unknown field" in refused
    assert "cronnSpec" in refused
    wrong = crontabs("apply", "-f", "-", stdin=NIGHTLY.replace('"* 0"', "5"), check=False)
    assert "spec.cronSpec" in wrong


def test_A35_custom_objects_own_and_are_owned(crontabs: Kubectl) -> None:
    crontabs("apply", "-f", "-", stdin=NIGHTLY)
    uid = crontabs.json("get", "ct", "nightly")["metadata"]["uid"]
    owner = f"{{apiVersion: stable.example.com/v1, kind: CronTab, name: nightly, uid: {uid}}}"
    owned = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: owned, ownerReferences: [{owner}]}}\n"
    crontabs("apply", "-f", "-", stdin=owned)
    crontabs("delete", "ct", "nightly")
    eventually(lambda: "NotFound" in crontabs("get", "configmap", "owned", check=False))


def test_A37_custom_objects_go_with_their_namespace(crontabs: Kubectl) -> None:
    crontabs("create", "namespace", "brief")
    crontabs("apply", "-n", "brief", "-f", "-", stdin=NIGHTLY)
    crontabs("delete", "namespace", "brief", "--timeout=60s")
    assert "nightly" not in crontabs("get", "ct", "-A", check=False)
