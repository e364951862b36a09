"""A pod with a host port, on a node of a real cluster."""

from __future__ import annotations

import json
import socket

import pytest

from tests.e2e.cluster import Kubectl, eventually

pytestmark = pytest.mark.containerd
PORT = 18081


def pod(name: str) -> str:
    port = {"containerPort": 8080, "hostPort": PORT}
    spec = {"containers": [{"name": "web", "image": "tiphys.dev/httpd:1", "ports": [port]}]}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def fetch(address: str) -> str:
    """What the port answers; the error's class where nobody does."""
    try:
        with socket.create_connection((address, PORT), 2) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            connection.settimeout(2)
            answer = b""
            while piece := connection.recv(4096):
                answer += piece
            return answer.decode().rpartition("\r\n\r\n")[2].strip()
    except OSError as err:
        return type(err).__name__


def test_F3_host_port_reaches_the_pod_on_the_node(kubectl: Kubectl) -> None:
    address = kubectl("get", "node", "node-1", "-o", "jsonpath={.status.addresses[0].address}")
    try:
        kubectl("apply", "-f", "-", stdin=pod("first"))
        kubectl("wait", "--for=condition=Ready", "pod/first", "--timeout=60s")
        eventually(lambda: fetch(address).startswith("first"))
        kubectl("apply", "-f", "-", stdin=pod("second"))
        eventually(lambda: "didn't have free ports" in kubectl("describe", "pod", "second"))
        # The port goes from one pod to the other: the scheduler lets it in once the first is gone.
        kubectl("delete", "pod", "first", "--timeout=60s")
        kubectl("wait", "--for=condition=Ready", "pod/second", "--timeout=60s")
        eventually(lambda: fetch(address).startswith("second"))
    finally:
        kubectl("delete", "pod", "first", "second", "--ignore-not-found", "--timeout=60s")
    eventually(lambda: fetch(address) == "ConnectionRefusedError")
