"""A small API server in Python behind the cluster's: stock kubectl reads it; killed, it takes nobody with it."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import Cluster, Kubectl, eventually
from tiphys_component.tls import CertificateAuthority

pytestmark = [pytest.mark.containerd, pytest.mark.parametrize("cluster", ["sqlite"], indirect=True, scope="session")]

GROUP = "fruit.example.com"
VERBS = ["get", "list"]
RESOURCES = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": f"{GROUP}/v1",
    "resources": [{"name": "pears", "singularName": "pear", "namespaced": True, "kind": "Pear", "verbs": VERBS}],
}


class Pears(BaseHTTPRequestHandler):
    """The extension: discovery, and one pear that tells who asked for it."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == f"/apis/{GROUP}/v1":
            return self._write(200, RESOURCES)
        if not path.startswith(f"/apis/{GROUP}/v1/"):
            return self._write(404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404})
        metadata = {"name": "conference", "namespace": "default", "uid": "1", "resourceVersion": "1"}
        head = {"apiVersion": f"{GROUP}/v1"}
        pear = {**head, "kind": "Pear", "metadata": metadata, "eater": self.headers.get("X-Remote-User", "")}
        if path.endswith("/pears"):
            return self._write(200, {**head, "kind": "PearList", "metadata": {"resourceVersion": "1"}, "items": [pear]})
        return self._write(200, pear)

    def _write(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def _extension(address: str, tls: ssl.SSLContext, port: int = 0) -> Iterator[int]:
    server = ThreadingHTTPServer((address, port), Pears)
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    running = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    running.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        running.join()
        server.server_close()


def _objects(address: str, port: int, ca_bundle: str) -> str:
    """The service has no selector: its one endpoint is the control plane's address."""
    service = {"metadata": {"name": "fruit"}, "spec": {"ports": [{"name": "api", "port": 443, "targetPort": port}]}}
    slices: dict[str, Any] = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "fruit", "labels": {"kubernetes.io/service-name": "fruit"}},
        "addressType": "IPv4",
        "ports": [{"name": "api", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
    }
    spec = {
        "group": GROUP,
        "version": "v1",
        "service": {"namespace": "default", "name": "fruit"},
        "caBundle": ca_bundle,
        "groupPriorityMinimum": 100,
        "versionPriority": 10,
    }
    head = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService"}
    api_service = {**head, "metadata": {"name": f"v1.{GROUP}"}, "spec": spec}
    items = [{"apiVersion": "v1", "kind": "Service", **service}, slices, api_service]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def test_A40_kubectl_reads_another_api_server_and_outlives_it(cluster: Cluster, tmp_path: Path) -> None:
    kubectl = cluster.kubectl()
    address = kubectl.json("get", "endpointslices", "kubernetes")["endpoints"][0]["addresses"][0]
    authority = CertificateAuthority.create("extension")
    authority.issue("fruit", sans=["fruit.default.svc"], server=True).write(tmp_path / "crt", tmp_path / "key")
    authority.credential.write(tmp_path / "ca.crt", tmp_path / "ca.key")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(cluster.home / "pki" / "front-proxy-ca.crt"))
    tls.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    tls.verify_mode = ssl.CERT_REQUIRED
    ca_bundle = base64.b64encode((tmp_path / "ca.crt").read_bytes()).decode()
    try:
        with _extension(address, tls) as port:
            kubectl("apply", "-f", "-", stdin=_objects(address, port, ca_bundle))
            kubectl("wait", "--for=condition=Available", f"apiservice/v1.{GROUP}", "--timeout=30s")
            for version in ("1.20", "1.32"):
                _read(cluster.kubectl(version))
        refused = kubectl("get", "--raw", f"/apis/{GROUP}/v1/namespaces/default/pears", check=False)
        assert "unable to handle the request" in refused or "ServiceUnavailable" in refused
        kubectl("get", "pods")
        shown = (f"apiservice/v1.{GROUP}", "--no-headers")
        assert eventually(lambda: "False (FailedDiscoveryCheck)" in kubectl("get", *shown), timeout_s=30)
        with _extension(address, tls, port):
            assert eventually(lambda: "conference" in kubectl("get", "pears", check=False), timeout_s=30)
    finally:
        kubectl("delete", f"apiservice/v1.{GROUP}", "service/fruit", "endpointslice/fruit", "--ignore-not-found")


def _read(kubectl: Kubectl) -> None:
    assert "conference" in kubectl("get", "pears")
    assert kubectl("get", "pears/conference", "-o", "jsonpath={.eater}") == "kubernetes-admin"
    assert f"pears.{GROUP}" in kubectl("api-resources", "-o", "name").split()
