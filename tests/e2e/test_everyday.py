"""kubectl's everyday verbs, each with both kubectls against a cluster; the older one where it has the verb."""

from __future__ import annotations

import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import MANIFESTS, VERSIONS, Cluster, Kubectl, eventually

# One store is enough: the verbs do not see it.
pytestmark = [pytest.mark.containerd, pytest.mark.parametrize("cluster", ["sqlite"], indirect=True, scope="session")]

HTTPD = "tiphys.dev/httpd:1"
WEB = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, labels: {{app: web}}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {{name: httpd, image: "{HTTPD}", imagePullPolicy: IfNotPresent, ports: [{{containerPort: 8080}}]}}
"""
SETTINGS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: red}
"""


@pytest.fixture(scope="module")
def web(cluster: Cluster) -> Iterator[str]:
    """A Deployment of one pod, and the visitor, whose image has a shell."""
    kubectl = cluster.kubectl()
    kubectl("apply", "-f", "-", stdin=WEB)
    kubectl("apply", "-f", str(MANIFESTS / "visitor.yaml"))
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    kubectl("wait", "--for=condition=Ready", "pod/visitor", "--timeout=60s")
    yield "deployment/web"
    kubectl("delete", "deployment/web", "pod/visitor", "--now", "--ignore-not-found")


@pytest.fixture
def settings(kubectl: Kubectl, tmp_path: Path) -> Iterator[Path]:
    """A ConfigMap that was applied from a file."""
    manifest = tmp_path / "settings.yaml"
    manifest.write_text(SETTINGS)
    kubectl("apply", "-f", str(manifest))
    yield manifest
    kubectl("delete", "-f", str(manifest), "--ignore-not-found")


def value(kubectl: Kubectl, what: str, path: str) -> str:
    return kubectl("get", what, "-o", f"jsonpath={{{path}}}")


def newest(kubectl: Kubectl) -> bool:
    """Whether this is the current kubectl."""
    return kubectl.binary.name.endswith(VERSIONS[-1])


def test_L17_get_describe_and_api_resources(kubectl: Kubectl, web: str) -> None:
    assert "1/1" in kubectl("get", web)
    assert "Replicas:" in kubectl("describe", web)
    listed = kubectl("api-resources", "-o", "name").split()
    assert {"pods", "deployments.apps", "customresourcedefinitions.apiextensions.k8s.io"} <= set(listed)
    assert {"v1", "apps/v1", "batch/v1"} <= set(kubectl("api-versions").split())
    assert "is running at" in kubectl("cluster-info")
    assert "Server Version" in kubectl("version", check=False)


def test_L17_explain(kubectl: Kubectl) -> None:
    assert "replicas" in kubectl("explain", "deployment.spec")
    assert "<integer>" in kubectl("explain", "deployment.spec.replicas")
    assert "ephemeralContainers" in kubectl("explain", "pods", "--recursive")


def test_L17_auth(kubectl: Kubectl) -> None:
    assert kubectl("auth", "can-i", "delete", "nodes").strip() == "yes"
    said = kubectl("auth", "can-i", "delete", "nodes", "--as=eve", check=False)
    assert "no" in said.split()
    assert "nodes" not in kubectl("auth", "can-i", "--list", "--as=eve").split()
    if newest(kubectl):
        assert "kubernetes-admin" in kubectl("auth", "whoami")


def test_H20_kubectl_asks_as_somebody_else(kubectl: Kubectl) -> None:
    said = kubectl("get", "secrets", "--as=eve", "--as-group=guests", check=False)
    assert 'User "eve" cannot list resource "secrets"' in said
    kubectl("get", "nodes", "--as=eve", "--as-group=system:masters")
    if newest(kubectl):
        shown = kubectl.json("auth", "whoami", "--as=eve", "--as-group=guests", "--as-uid=7")
        who = shown["status"]["userInfo"]
        assert (who["username"], who["uid"]) == ("eve", "7")
        assert "guests" in who["groups"]


def test_L17_label_annotate_and_selectors(kubectl: Kubectl, settings: Path) -> None:
    kubectl("label", "-f", str(settings), "tier=back")
    assert "settings" in kubectl("get", "configmaps", "-l", "tier=back", "-o", "name")
    assert "already has a value" in kubectl("label", "configmap/settings", "tier=front", check=False)
    kubectl("label", "configmap/settings", "tier=front", "--overwrite")
    kubectl("label", "configmap/settings", "tier-")
    assert kubectl("get", "configmaps", "-l", "tier", "-o", "name") == ""
    kubectl("annotate", "configmap/settings", "note=a b")
    assert value(kubectl, "configmap/settings", ".metadata.annotations.note") == "a b"


def test_L17_patch_replace_and_diff(kubectl: Kubectl, settings: Path) -> None:
    for kind, patch in (
        ("strategic", '{"data": {"size": "1"}}'),
        ("merge", '{"data": {"color": null}}'),
        ("json", '[{"op": "add", "path": "/data/shape", "value": "round"}]'),
    ):
        kubectl("patch", "configmap/settings", f"--type={kind}", "-p", patch)
    assert kubectl.json("get", "configmap/settings")["data"] == {"size": "1", "shape": "round"}
    assert "+  color: red" in kubectl("diff", "-f", str(settings), check=False)
    kubectl("replace", "-f", str(settings))
    assert kubectl("diff", "-f", str(settings), check=False) == ""
    kubectl("replace", "--force", "-f", str(settings))
    assert kubectl.json("get", "configmap/settings")["data"] == {"color": "red"}


def test_L17_edit(kubectl: Kubectl, settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR", "sed -i s/red/blue/")
    assert "configmap/settings edited" in kubectl("edit", "configmap/settings")
    assert value(kubectl, "configmap/settings", ".data.color") == "blue"
    monkeypatch.setenv("EDITOR", "true")
    assert "no changes" in kubectl("edit", "configmap/settings", check=False)


def test_L17_create_and_delete(kubectl: Kubectl) -> None:
    made: tuple[tuple[str, ...], ...] = (
        ("namespace", "aside"),
        ("configmap", "c", "--from-literal=a=b"),
        ("secret", "generic", "s", "--from-literal=a=b"),
        ("serviceaccount", "sa"),
        ("role", "r", "--verb=get", "--resource=pods"),
        ("rolebinding", "rb", "--role=r", "--serviceaccount=aside:sa"),
        ("job", "j", f"--image={HTTPD}"),
        ("quota", "q", "--hard=pods=5"),
        ("ingress", "i", "--rule=example.com/*=web:80"),
    )
    if newest(kubectl):
        # The older one writes versions that Kubernetes has long given up.
        made += (
            ("cronjob", "cj", f"--image={HTTPD}", "--schedule=0 0 1 1 *"),
            ("poddisruptionbudget", "p", "--selector=app=x", "--min-available=1"),
        )
    for what in made:
        assert " created" in kubectl("create", *what, *(() if what[0] == "namespace" else ("--namespace=aside",)))
    assert (
        kubectl("auth", "can-i", "get", "pods", "-n", "aside", "--as=system:serviceaccount:aside:sa").strip() == "yes"
    )
    if newest(kubectl):
        assert kubectl("create", "token", "sa", "-n", "aside").count(".") == 2
    assert 'namespace "aside" deleted' in kubectl("delete", "namespace/aside", "--timeout=60s")


def test_L17_B10_scale_autoscale_expose_and_set(kubectl: Kubectl, web: str) -> None:
    kubectl("scale", web, "--replicas=2")
    kubectl("rollout", "status", web, "--timeout=60s")
    assert "xpected" in kubectl("scale", web, "--current-replicas=9", "--replicas=3", check=False)
    kubectl("scale", web, "--replicas=1")
    kubectl("autoscale", web, "--min=1", "--max=3", "--cpu-percent=80")
    assert value(kubectl, "hpa/web", ".spec.maxReplicas") == "3"
    kubectl("delete", "hpa/web")
    kubectl("expose", web, "--port=80", "--target-port=8080")
    assert value(kubectl, "service/web", ".spec.selector.app") == "web"
    kubectl("delete", "service/web")
    kubectl("set", "env", web, f"FROM={kubectl.binary.name}")
    kubectl("set", "resources", web, "--requests=cpu=1m")
    kubectl("rollout", "status", web, "--timeout=60s")
    container = kubectl.json("get", web)["spec"]["template"]["spec"]["containers"][0]
    assert container["env"] == [{"name": "FROM", "value": kubectl.binary.name}]
    assert container["resources"]["requests"] == {"cpu": "1m"}


def test_L17_B5_B7_rollout(kubectl: Kubectl, web: str) -> None:
    kubectl("rollout", "restart", web)
    assert "successfully rolled out" in kubectl("rollout", "status", web, "--timeout=60s")
    kubectl("rollout", "pause", web)
    kubectl("set", "image", web, "httpd=tiphys.dev/httpd:2")
    assert "paused" in kubectl("rollout", "pause", web, check=False)
    kubectl("rollout", "resume", web)
    kubectl("rollout", "status", web, "--timeout=60s")
    assert "REVISION" in kubectl("rollout", "history", web)
    kubectl("rollout", "undo", web)
    kubectl("rollout", "status", web, "--timeout=60s")
    assert value(kubectl, web, ".spec.template.spec.containers[0].image") == HTTPD


def test_L17_run_wait_attach_and_delete(kubectl: Kubectl, web: str) -> None:
    shell = ("--image=docker.io/library/busybox:latest", "--image-pull-policy=IfNotPresent", "--restart=Never")
    said = kubectl(
        "run", "once", *shell, "--rm", "-i", "--", "sh", "-c", "sleep 1; read word; echo got $word", stdin="it\n"
    )
    assert "got it" in said
    kubectl("run", "stay", *shell, "--", "sh", "-c", "while true; do echo tick; sleep 0.2; done")
    assert "condition met" in kubectl("wait", "--for=condition=Ready", "pod/stay", "--timeout=30s")
    attached = kubectl.popen("attach", "stay", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        output = attached.stdout
        assert output is not None
        assert eventually(lambda: "tick" in output.readline())
    finally:
        attached.kill()
        attached.communicate()
    if newest(kubectl):
        kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/stay", "--timeout=10s")
    kubectl("delete", "pod/stay", "--now")
    kubectl("wait", "--for=delete", "pod/stay", "--timeout=30s", check=False)
    assert "NotFound" in kubectl("get", "pod/stay", check=False)


def test_L17_logs_exec_and_cp(kubectl: Kubectl, web: str, tmp_path: Path) -> None:
    assert "line" in kubectl("logs", "visitor", "--tail=1")
    assert kubectl("exec", "visitor", "--", "echo", "here").strip() == "here"
    there = tmp_path / "file"
    there.write_text("carried")
    kubectl("cp", str(there), "visitor:/tmp/file")
    assert kubectl("exec", "visitor", "--", "cat", "/tmp/file") == "carried"
    kubectl("cp", "visitor:/tmp/file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "carried"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _fetch(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            body: bytes = answer.read()
            return body.decode()
    except OSError as err:
        raise AssertionError(str(err)) from err


def test_L17_port_forward(kubectl: Kubectl, web: str) -> None:
    port = _free_port()
    running = kubectl.popen("port-forward", web, f"{port}:8080", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert eventually(lambda: _fetch(f"http://127.0.0.1:{port}/").startswith("web-"), timeout_s=15)
    finally:
        running.kill()
        running.wait()


def test_L3_kubectl_proxy_serves_the_api_and_what_lies_behind_pods_and_services(kubectl: Kubectl, web: str) -> None:
    kubectl("expose", web, "--name=behind", "--port=80", "--target-port=8080")
    port = _free_port()
    running = kubectl.popen("proxy", f"--port={port}", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        base = f"http://127.0.0.1:{port}"
        assert '"APIVersions"' in eventually(lambda: _fetch(f"{base}/api"), timeout_s=15)
        (pod,) = kubectl.json("get", "pods", "-l", "app=web", "--field-selector=status.phase=Running")["items"]
        name = pod["metadata"]["name"]
        pods = f"{base}/api/v1/namespaces/default/pods"
        assert _fetch(f"{pods}/{name}:8080/proxy").startswith(name)
        services = f"{base}/api/v1/namespaces/default/services"
        assert eventually(lambda: _fetch(f"{services}/behind/proxy/").startswith(name), timeout_s=10)
        assert _fetch(f"{base}/api/v1/nodes/node-1/proxy/healthz") == "ok"
    finally:
        running.kill()
        running.wait()
        kubectl("delete", "service/behind")


def test_L17_B33_cordon_taint_drain_and_uncordon(kubectl: Kubectl, web: str) -> None:
    kubectl("rollout", "status", web, "--timeout=60s")
    try:
        kubectl("cordon", "node-1")
        assert "SchedulingDisabled" in kubectl("get", "node/node-1")
        before = kubectl("get", "pods", "-l", "app=web", "-o", "name").split()
        keep = "--pod-selector=app=web"
        assert "evicted" in kubectl("drain", "node-1", "--ignore-daemonsets", "--force", keep, "--timeout=60s")
        after = eventually(lambda: kubectl("get", "pods", "-l", "app=web", "-o", "name").split())
        assert not set(before) & set(after)
        kubectl("taint", "nodes", "node-1", "here=no:NoSchedule")
        assert "here" in value(kubectl, "node/node-1", ".spec.taints[*].key").split()
        kubectl("taint", "nodes", "node-1", "here-")
    finally:
        kubectl("uncordon", "node-1")
    kubectl("rollout", "status", web, "--timeout=60s")


def test_L17_events_and_debug(kubectl: Kubectl, web: str) -> None:
    assert "Scheduled" in kubectl("get", "events", "--field-selector=involvedObject.name=visitor")
    if not newest(kubectl):
        # It has neither events nor, outside alpha, debug.
        return
    assert "Scheduled" in kubectl("events", "--for=pod/visitor")
    image = "--image=docker.io/library/busybox:latest"
    kubectl("debug", "visitor", image, "--image-pull-policy=IfNotPresent", "-c", "look", "--target=main", "--", "ps")
    ended = ".status.ephemeralContainerStatuses[?(@.name=='look')].state.terminated.exitCode"
    assert eventually(lambda: value(kubectl, "pod/visitor", ended) == "0", timeout_s=30)
    assert "sleep" in kubectl("logs", "visitor", "-c", "look")


def test_L17_top(kubectl: Kubectl, web: str) -> None:
    """What the figures are is test_autoscaling's business."""
    assert eventually(lambda: "visitor" in kubectl("top", "pods", check=False))
    assert "node-1" in kubectl("top", "nodes")
