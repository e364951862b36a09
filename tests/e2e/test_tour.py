"""The main job, as a newcomer does it: ordinary YAML, stock kubectl, and a container that answers."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.cluster import MANIFESTS, Cluster, Kubectl, eventually, run

pytestmark = pytest.mark.containerd
VISITOR = ("exec", "visitor", "--")


def pods(kubectl: Kubectl, label: str = "app=shop") -> list[str]:
    return kubectl("get", "pods", "-l", label, "-o", "name").split()


def ask(kubectl: Kubectl, address: str) -> str:
    """What the web server says: its pod's name and its version. (No -T: Debian's static wget crashes with it.)"""
    return kubectl(*VISITOR, "wget", "-q", "-O", "-", f"http://{address}/", timeout_s=15).strip()


def test_a_deployment_is_applied_looked_at_changed_and_deleted(kubectl: Kubectl) -> None:
    manifest = ("-f", str(MANIFESTS / "shop.yaml"))
    assert "deployment.apps/shop created" in kubectl("apply", *manifest)
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/shop", "--timeout=60s")
    assert "unchanged" in kubectl("apply", *manifest)
    assert kubectl("diff", *manifest, check=False) == ""
    wide = kubectl("get", "pods", "-l", "app=shop", "-o", "wide").splitlines()
    assert wide[0].split() == (
        ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED", "NODE", "READINESS", "GATES"]
    )
    assert len(wide) == 4
    assert all(re.search(r"1/1 +Running +0 .* 10\.244\.\d+\.\d+ +node-1", line) for line in wide[1:])
    described = kubectl("describe", "deployment", "shop")
    assert "3 desired | 3 updated | 3 total | 3 available | 0 unavailable" in described
    assert "Scaled up replica set" in described
    assert "Started container httpd" in kubectl("describe", pods(kubectl)[0])
    kubectl("scale", "deployment/shop", "--replicas=5")
    kubectl("rollout", "status", "deployment/shop", "--timeout=60s")
    assert len(pods(kubectl)) == 5
    kubectl("delete", *manifest, "--timeout=60s")
    eventually(lambda: pods(kubectl) == [])


def test_a_new_image_rolls_out_and_back(shop: Kubectl) -> None:
    assert ask(shop, "shop").endswith(" 1")
    shop("set", "image", "deployment/shop", "httpd=tiphys.dev/httpd:2")
    shop("rollout", "status", "deployment/shop", "--timeout=90s")
    assert ask(shop, "shop").endswith(" 2")
    assert "2" in shop("rollout", "history", "deployment/shop").split()
    shop("rollout", "undo", "deployment/shop")
    shop("rollout", "status", "deployment/shop", "--timeout=90s")
    assert ask(shop, "shop").endswith(" 1")


def test_G1_the_service_answers_by_name_and_address_from_every_replica(shop: Kubectl) -> None:
    names = {name.removeprefix("pod/") for name in pods(shop)}
    address = shop("get", "service", "shop", "-o", "jsonpath={.spec.clusterIP}")
    for target in ("shop", "shop.default.svc.cluster.local", address):
        seen: set[str] = set()

        def every_replica(target: str = target, seen: set[str] = seen) -> bool:
            seen.update(name for name in names if name in ask(shop, target))
            return seen == names

        assert eventually(every_replica)


def test_G11_the_node_port_answers_on_the_node(shop: Kubectl) -> None:
    port = shop("get", "service", "shop", "-o", "jsonpath={.spec.ports[0].nodePort}")
    node = shop("get", "nodes", "-o", "jsonpath={.items[0].status.addresses[0].address}")
    assert ask(shop, f"{node}:{port}").endswith(" 1")


def test_configuration_and_secret_are_in_the_container(shop: Kubectl) -> None:
    target = pods(shop)[0]
    assert shop("exec", target, "--", "sh", "-c", "echo $GREETING; cat /secret/word").split("\n") == [
        "good morning",
        "swordfish",
    ]


# Speaks to the API server as a program in the pod would: by name, over TLS with the mounted CA, with the mounted token.
_IN_CLUSTER_CLIENT = """
import json, pathlib, socket, ssl, sys
mount = pathlib.Path(f"/proc/{sys.argv[1]}/root/var/run/secrets/kubernetes.io/serviceaccount")
context = ssl.create_default_context(cafile=str(mount / "ca.crt"))
with socket.create_connection((sys.argv[2], 443), 10) as plain:
    with context.wrap_socket(plain, server_hostname="kubernetes.default.svc") as secured:
        token = (mount / "token").read_text()
        head = f"GET /apis HTTP/1.0\\r\\nHost: kubernetes.default.svc\\r\\nAuthorization: Bearer {token}\\r\\n\\r\\n"
        secured.sendall(head.encode())
        print(secured.makefile().read())
"""


def _process_of_visitor() -> int:
    for found in Path("/proc").glob("[0-9]*"):
        try:
            if b"echo line $i" in (found / "cmdline").read_bytes():
                return int(found.name)
        except OSError:
            continue
    raise AssertionError("the visitor's process is not there")


def test_a_pod_reaches_the_api_server_with_its_token(shop: Kubectl) -> None:
    said = shop(*VISITOR, "nslookup", "kubernetes.default.svc.cluster.local")
    assert "10.96.0.1" in said
    pid = str(_process_of_visitor())
    answer = run("nsenter", "-t", pid, "-n", sys.executable, "-c", _IN_CLUSTER_CLIENT, pid, "10.96.0.1")
    assert answer.startswith(("HTTP/1.0 200", "HTTP/1.1 200")), answer
    assert "APIGroupList" in answer
    token = shop(*VISITOR, "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    found = json.loads(shop("create", "-f", "-", "-o", "json", stdin=json.dumps(review)))
    assert found["status"]["user"]["username"] == "system:serviceaccount:default:default"


def test_logs_are_read_followed_and_cut(shop: Kubectl) -> None:
    eventually(lambda: "line 2" in shop("logs", "visitor"))
    assert len(shop("logs", "visitor", "--tail=1").splitlines()) == 1
    following = shop.popen("logs", "-f", "visitor", stdout=subprocess.PIPE)
    assert following.stdout is not None
    first = [following.stdout.readline() for _ in range(4)]
    following.terminate()
    following.wait(timeout=10)
    following.stdout.close()
    assert first == [f"line {i}\n" for i in range(4)]


def test_the_log_of_the_container_before_is_kept(cluster: Cluster) -> None:
    kubectl = cluster.kubectl()
    command = "echo attempt; exit 3"
    kubectl("run", "failing", "--image=docker.io/library/busybox:latest", "--image-pull-policy=IfNotPresent",
            "--restart=Always", "--", "sh", "-c", command)  # fmt: skip
    try:
        eventually(lambda: int(kubectl("get", "pod", "failing", "-o", _RESTARTS) or 0) >= 1)
        assert kubectl("logs", "failing", "--previous").strip() == "attempt"
        eventually(lambda: "CrashLoopBackOff" in kubectl("get", "pod", "failing"))
    finally:
        kubectl("delete", "pod", "failing", "--grace-period=1")


_RESTARTS = "jsonpath={.status.containerStatuses[0].restartCount}"


def test_a_watch_shows_changes_as_they_come(shop: Kubectl) -> None:
    watching = shop.popen("get", "pods", "-l", "app=shop", "-w", stdout=subprocess.PIPE)
    assert watching.stdout is not None
    for _ in range(4):
        watching.stdout.readline()
    victim = pods(shop)[0].removeprefix("pod/")
    shop("delete", "pod", victim, "--wait=false")
    seen = ""
    while not re.search(rf"{victim} +\S+ +Terminating", seen):
        line = watching.stdout.readline()
        assert line, f"the watch ended: {seen}"
        seen += line
    watching.terminate()
    watching.wait(timeout=10)
    watching.stdout.close()
    shop("rollout", "status", "deployment/shop", "--timeout=60s")


def test_exec_has_input_output_and_exit_code(cluster: Cluster, shop: Kubectl) -> None:
    for version in ("1.20", "1.32"):
        kubectl = cluster.kubectl(version)
        assert kubectl("exec", "-i", "visitor", "--", "cat", stdin="hello\nthere\n") == "hello\nthere\n"
        said = kubectl("exec", "visitor", "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
        assert "out" in said
        assert "err" in said
        assert "exit code 7" in said


@pytest.mark.parametrize("version", ["1.20", "1.32"])
def test_exec_with_a_terminal(cluster: Cluster, shop: Kubectl, version: str) -> None:
    kubectl = cluster.kubectl(version)
    master, slave = pty.openpty()
    process = kubectl.popen("exec", "-it", "visitor", "--", "sh", stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    os.write(master, b"tty; stty size; exit 0\n")
    said = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:
            break
        if not piece:
            break
        said += piece
    os.close(master)
    assert process.wait(timeout=30) == 0
    assert b"/dev/pts/" in said


def test_explain_knows_every_field(kubectl: Kubectl) -> None:
    said = kubectl("explain", "deployment.spec.strategy")
    assert "rollingUpdate" in said
    assert "maxSurge" in kubectl("explain", "deployment.spec.strategy", "--recursive")


def test_the_store_is_what_was_asked_for(cluster: Cluster) -> None:
    assert (cluster.home / "store" / "tiphys.db").exists() == (cluster.store == "sqlite")
