"""kubeconfig files, stock ones and ours: reading one context into a ClientConfig, and writing one.

Ours carry the gRPC address in the cluster's extension `tiphys.grpc`; a stock one gets the server's host with port 6444.
Credentials are client certificates and tokens, in files or inline. Exec and auth-provider plugins and passwords are
refused, because nothing here runs them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tiphys_component.app import StartupError
from tiphys_component.certificates import write_file

GRPC_PORT = 6444
GRPC_EXTENSION = "tiphys.grpc"
SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class KubeconfigError(StartupError):
    """A kubeconfig can't be used; says which file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """How to reach a server and who one is. PEM contents are bytes, empty where absent; secrets stay out of repr()."""

    server_url: str
    grpc_address: str
    ca_pem: bytes = b""
    cert_pem: bytes = b""
    key_pem: bytes = b""
    token: str = ""
    token_file: Path | None = None
    tls_server_name: str = ""
    insecure_skip_tls_verify: bool = False
    namespace: str = "default"

    def __repr__(self) -> str:
        return f"ClientConfig({self.server_url}, grpc={self.grpc_address})"


def load(path: Path | str, context: str | None = None) -> ClientConfig:
    """Read one context of a kubeconfig, the current one unless it is named.

    Raises KubeconfigError when the file is missing or damaged, or asks for what is not supported.
    """
    file = Path(path)
    try:
        document = yaml.load(file.read_bytes(), Loader=yaml.CSafeLoader)
    except OSError as err:
        raise KubeconfigError(
            f"cannot read kubeconfig {file}: {err.strerror}", "give another with --kubeconfig"
        ) from err
    except yaml.YAMLError as err:
        raise KubeconfigError(f"kubeconfig {file} is not YAML: {err}", "repair it or make it anew") from err
    if not isinstance(document, dict):
        raise KubeconfigError(f"kubeconfig {file} is empty", "repair it or make it anew")
    return _Reader(file, document).config(context)


class _Reader:
    """One document while a context of it is read."""

    def __init__(self, file: Path, document: Mapping[str, Any]) -> None:
        self._file = file
        self._document = document

    def config(self, context: str | None) -> ClientConfig:
        name = context or self._document.get("current-context") or ""
        if not name:
            raise self._error("has no current-context", "choose one with kubectl config use-context")
        chosen = self._entry("contexts", "context", name)
        cluster = self._entry("clusters", "cluster", chosen.get("cluster") or "")
        user = self._entry("users", "user", chosen["user"]) if chosen.get("user") else {}
        for refused in ("exec", "auth-provider", "username"):
            if user.get(refused):
                raise self._error(
                    f"user {chosen['user']} uses {refused}", "use a client certificate or a token, which are supported"
                )
        server = str(cluster.get("server") or "")
        if not urlsplit(server).hostname:
            raise self._error(f"cluster {chosen.get('cluster')} has no usable server: {server!r}", "give it a URL")
        token_file = user.get("tokenFile")
        return ClientConfig(
            server_url=server,
            grpc_address=self._grpc_address(cluster, server),
            ca_pem=self._content(cluster, "certificate-authority"),
            cert_pem=self._content(user, "client-certificate"),
            key_pem=self._content(user, "client-key"),
            token=str(user.get("token") or ""),
            token_file=self._file.parent / token_file if token_file else None,
            tls_server_name=str(cluster.get("tls-server-name") or ""),
            insecure_skip_tls_verify=bool(cluster.get("insecure-skip-tls-verify")),
            namespace=str(chosen.get("namespace") or "default"),
        )

    def _entry(self, section: str, key: str, name: str) -> Mapping[str, Any]:
        for entry in self._document.get(section) or ():
            if isinstance(entry, dict) and entry.get("name") == name:
                return entry.get(key) or {}
        raise self._error(f"has no {key} named {name!r}", "see kubectl config get-contexts")

    def _content(self, entry: Mapping[str, Any], key: str) -> bytes:
        data = entry.get(f"{key}-data")
        if data:
            try:
                return base64.b64decode(data, validate=True)
            except (binascii.Error, TypeError, ValueError) as err:
                raise self._error(f"{key}-data is not base64: {err}", "repair it or make it anew") from err
        if not entry.get(key):
            return b""
        path = self._file.parent / str(entry[key])
        try:
            return path.read_bytes()
        except OSError as err:
            raise self._error(f"names {key} {path}, which cannot be read: {err.strerror}", "check the path") from err

    def _grpc_address(self, cluster: Mapping[str, Any], server: str) -> str:
        for extension in cluster.get("extensions") or ():
            if isinstance(extension, dict) and extension.get("name") == GRPC_EXTENSION:
                return str((extension.get("extension") or {}).get("address") or "")
        host = urlsplit(server).hostname or ""
        return f"[{host}]:{GRPC_PORT}" if ":" in host else f"{host}:{GRPC_PORT}"

    def _error(self, problem: str, advice: str) -> KubeconfigError:
        return KubeconfigError(f"kubeconfig {self._file} {problem}", advice)


def in_cluster(server_host: str, directory: Path = SERVICE_ACCOUNT_DIR) -> ClientConfig:
    """The configuration of a pod: its service account's token, which is read again as it rotates, and authority.

    Raises KubeconfigError when the files are not there.
    """
    try:
        ca_pem = (directory / "ca.crt").read_bytes()
        namespace = (directory / "namespace").read_text().strip()
    except OSError as err:
        raise KubeconfigError(f"no service account in {directory}: {err.strerror}", "give --kubeconfig") from err
    host = f"[{server_host}]" if ":" in server_host else server_host
    return ClientConfig(
        server_url=f"https://{host}",
        grpc_address=f"{host}:{GRPC_PORT}",
        ca_pem=ca_pem,
        token_file=directory / "token",
        namespace=namespace,
    )


def document(config: ClientConfig, *, cluster: str = "tiphys", user: str = "admin") -> dict[str, Any]:
    """The kubeconfig of one context, credentials inline, as kubectl and load() read it."""
    cluster_entry: dict[str, Any] = {"server": config.server_url}
    if config.ca_pem:
        cluster_entry["certificate-authority-data"] = _encode(config.ca_pem)
    if config.tls_server_name:
        cluster_entry["tls-server-name"] = config.tls_server_name
    if config.insecure_skip_tls_verify:
        cluster_entry["insecure-skip-tls-verify"] = True
    if config.grpc_address:
        cluster_entry["extensions"] = [{"name": GRPC_EXTENSION, "extension": {"address": config.grpc_address}}]
    user_entry: dict[str, Any] = {}
    if config.cert_pem:
        user_entry["client-certificate-data"] = _encode(config.cert_pem)
        user_entry["client-key-data"] = _encode(config.key_pem)
    if config.token:
        user_entry["token"] = config.token
    if config.token_file:
        user_entry["tokenFile"] = str(config.token_file)
    context_entry: dict[str, Any] = {"cluster": cluster, "user": user}
    if config.namespace != "default":
        context_entry["namespace"] = config.namespace
    name = f"{user}@{cluster}"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": cluster_entry}],
        "users": [{"name": user, "user": user_entry}],
        "contexts": [{"name": name, "context": context_entry}],
        "current-context": name,
        "preferences": {},
    }


def write(path: Path | str, config: ClientConfig, *, cluster: str = "tiphys", user: str = "admin") -> None:
    """Write a kubeconfig of one context, whole or not at all, readable by its owner only."""
    text = yaml.dump(document(config, cluster=cluster, user=user), Dumper=yaml.CSafeDumper, sort_keys=False)
    write_file(Path(path), text.encode(), mode=0o600)


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()
