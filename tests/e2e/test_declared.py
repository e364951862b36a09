"""What stock kubectl does by itself: the three-way merge of apply, who it says one is, and what has happened."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.cluster import Kubectl, eventually

pytestmark = pytest.mark.containerd

SHOP = """
apiVersion: v1
kind: ConfigMap
metadata: {name: merged, labels: {tier: front, owner: us}}
data: {color: blue, size: large}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: merged}
spec:
  replicas: 0
  selector: {matchLabels: {app: merged}}
  template:
    metadata: {labels: {app: merged}}
    spec:
      containers:
      - name: web
        image: "tiphys.dev/httpd:1"
        env: [{name: COLOR, value: blue}, {name: SIZE, value: large}]
        ports: [{containerPort: 8080}]
      - {name: helper, image: "tiphys.dev/httpd:1"}
"""
_WATCH_OF_EVENTS = re.compile(r'^apiserver_longrunning_requests\{.*resource="events".*scope="namespace".* [1-9]', re.M)
LAST = "kubectl.kubernetes.io/last-applied-configuration"


def test_A29_apply_takes_away_what_it_gave_and_leaves_what_others_gave(kubectl: Kubectl, tmp_path: Path) -> None:
    manifest = tmp_path / "shop.yaml"
    manifest.write_text(SHOP)
    try:
        kubectl("apply", "-f", str(manifest))
        _others_write(kubectl)
        manifest.write_text(
            SHOP.replace(", owner: us", "")
            .replace("color: blue, size: large", "color: red")
            .replace(", {name: SIZE, value: large}", "")
            .replace('\n      - {name: helper, image: "tiphys.dev/httpd:1"}', "")
        )
        said = kubectl("apply", "-f", str(manifest))
        assert "configmap/merged configured" in said
        assert "deployment.apps/merged configured" in said
        _look(kubectl)
        assert "configmap/merged unchanged" in kubectl("apply", "-f", str(manifest))
    finally:
        kubectl("delete", "deployment/merged", "configmap/merged", "--ignore-not-found")


def _others_write(kubectl: Kubectl) -> None:
    kubectl("label", "configmap/merged", "team=they")
    kubectl("patch", "configmap/merged", "--type=merge", "-p", '{"data": {"weight": "heavy"}}')
    kubectl("set", "env", "deployment/merged", "--containers=web", "WEIGHT=heavy")
    sidecar = {"name": "sidecar", "image": "tiphys.dev/httpd:1"}
    patch = {"spec": {"template": {"spec": {"containers": [sidecar]}}}}
    kubectl("patch", "deployment/merged", "-p", json.dumps(patch))


def _look(kubectl: Kubectl) -> None:
    settings = kubectl.json("get", "configmap/merged")
    assert settings["data"] == {"color": "red", "weight": "heavy"}
    assert settings["metadata"]["labels"] == {"tier": "front", "team": "they"}
    assert json.loads(settings["metadata"]["annotations"][LAST])["data"] == {"color": "red"}
    containers = kubectl.json("get", "deployment/merged")["spec"]["template"]["spec"]["containers"]
    assert {one["name"] for one in containers} == {"web", "sidecar"}
    web = next(one for one in containers if one["name"] == "web")
    assert {one["name"]: one["value"] for one in web["env"]} == {"COLOR": "blue", "WEIGHT": "heavy"}
    assert web["ports"] == [{"containerPort": 8080, "protocol": "TCP"}]


def test_H4_kubectl_says_who_one_is(kubectl: Kubectl, tmp_path: Path) -> None:
    if "1.20" in kubectl.binary.name:
        # It cannot ask; what it may do tells the same.
        assert kubectl("auth", "can-i", "*", "*").strip() == "yes"
        return
    assert "system:masters" in kubectl("auth", "whoami")
    kubectl("create", "serviceaccount", "robot")
    try:
        token = kubectl("create", "token", "robot").strip()
        config = kubectl.json("config", "view", "--raw")
        config["users"][0]["user"] = {"token": token}
        kubeconfig = tmp_path / "robot.conf"
        kubeconfig.write_text(json.dumps(config))
        shown = Kubectl(kubectl.binary, kubeconfig)("auth", "whoami", "-o", "json")
        person = json.loads(shown)["status"]["userInfo"]
        assert person["username"] == "system:serviceaccount:default:robot"
        assert "system:serviceaccounts:default" in person["groups"]
    finally:
        kubectl("delete", "serviceaccount/robot")


def test_J8_what_happened_is_told_and_watched(kubectl: Kubectl) -> None:
    name = "told-" + kubectl.binary.name.replace(".", "-")
    watch = ("events", "--watch") if "1.20" not in kubectl.binary.name else ("get", "events", "--watch-only")
    watching = kubectl.popen(*watch, "--request-timeout=120s", stdout=subprocess.PIPE)
    try:
        eventually(lambda: _WATCH_OF_EVENTS.search(kubectl("get", "--raw", "/metrics")))
        kubectl("create", "deployment", name, "--image=tiphys.dev/httpd:1")
        assert watching.stdout is not None
        wanted = {"ScalingReplicaSet", "SuccessfulCreate", "Scheduled", "Created", "Started"}
        for line in watching.stdout:
            wanted -= {reason for reason in wanted if reason in line and name in line}
            if not wanted:
                break
        assert not wanted
        pod = kubectl("get", "pods", f"--selector=app={name}", "-o", "name").strip()
        if "1.20" not in kubectl.binary.name:
            assert "Started" in kubectl("events", f"--for={pod}", "--types=Normal")
        about = f"involvedObject.name={pod.removeprefix('pod/')},reason=Scheduled"
        listed = kubectl.json("get", "events", f"--field-selector={about}")["items"]
        assert [one["involvedObject"]["kind"] for one in listed] == ["Pod"]
        kinds = eventually(lambda: kubectl("describe", f"deployment/{name}"))
        assert "Scaled up replica set" in kinds
    finally:
        watching.kill()
        watching.communicate()
        kubectl("delete", f"deployment/{name}")
