"""Kubeconfig files for the cluster's people and components, complete in themselves: certificates are inside."""

from __future__ import annotations

import base64
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Access:
    """Who reaches which API server; grpc_address, host:port, is told in an extension that kubectl ignores."""

    cluster: str
    server: str
    grpc_address: str
    user: str
    ca_pem: bytes
    cert_pem: bytes
    key_pem: bytes


def render(access: Access) -> str:
    """The file's text. Context and cluster carry the cluster's name, so that several files merge without a clash."""
    name = access.cluster
    return f"""\
apiVersion: v1
kind: Config
clusters:
- name: {name}
  cluster:
    certificate-authority-data: {_encode(access.ca_pem)}
    server: {access.server}
    extensions:
    - name: tiphys.grpc
      extension:
        address: "{access.grpc_address}"
contexts:
- name: {name}
  context:
    cluster: {name}
    user: "{access.user}@{name}"
current-context: {name}
users:
- name: "{access.user}@{name}"
  user:
    client-certificate-data: {_encode(access.cert_pem)}
    client-key-data: {_encode(access.key_pem)}
"""


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
