"""The cluster's certificates: which there are, and how they are kept fresh without touching those that are.

What was issued for what is written in an index beside the files, so that a start that has nothing to issue need not
even load the cryptography library. Delete a file, and the next `up` makes it
anew; delete the CA, and it makes all anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tiphys_cluster.kubeconfig import Access, render
from tiphys_cluster.layout import Layout
from tiphys_cluster.settings import Settings, write_atomic
from tiphys_component.clock import Clock

# A year's certificate is made anew in its last quarter; `up` is then seldom the moment at which it ends.
RENEW_BEFORE = timedelta(days=90)
_VALIDITY = timedelta(days=365)
_CA_VALIDITY = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate to have: at path.crt and path.key, or inside the kubeconfig at conf, or both.

    server_url is where that kubeconfig points. authority is "ca" or "front-proxy-ca".
    """

    path: str
    common_name: str
    organizations: tuple[str, ...] = ()
    sans: tuple[str, ...] = ()
    server: bool = False
    client: bool = False
    authority: str = "ca"
    conf: str = ""
    host: str = ""


def wanted(layout: Layout, settings: Settings) -> list[Leaf]:
    """Every certificate of the cluster. Names and groups are Kubernetes' (kubeadm's list of certificates)."""
    pki, local = layout.pki, ("localhost", "127.0.0.1", settings.leg_ip)
    leaves = [
        Leaf(str(pki / "apiserver"), "kube-apiserver", sans=_apiserver_names(settings), server=True),
        Leaf(str(pki / "apiserver-kubelet-client"), "kube-apiserver-kubelet-client", ("system:masters",), client=True),
        Leaf(str(pki / "front-proxy-client"), "front-proxy-client", client=True, authority="front-proxy-ca"),
        Leaf(
            str(pki / "admin"),
            "kubernetes-admin",
            ("system:masters",),
            client=True,
            conf=str(layout.admin_conf),
            host="127.0.0.1",
        ),
    ]
    for component, name in _COMPONENTS.items():
        conf = str(layout.conf(component))
        leaves.append(
            Leaf(str(pki / component), name, sans=local, server=True, client=True, conf=conf, host="127.0.0.1")
        )
    return leaves + [leaf for node in settings.nodes for leaf in _node_leaves(layout, settings, node)]


_COMPONENTS = {
    "controller-manager": "system:kube-controller-manager",
    "scheduler": "system:kube-scheduler",
    "cluster-dns": "system:cluster-dns",
}


def _apiserver_names(settings: Settings) -> tuple[str, ...]:
    domain = settings.cluster_domain
    service = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{domain}")
    return ("localhost", *service, "127.0.0.1", settings.leg_ip, settings.kubernetes_service_ip)


def _node_leaves(layout: Layout, settings: Settings, node: str) -> list[Leaf]:
    files, leg = layout.node(node), settings.leg_ip
    names = (node, settings.node_ip(node), "localhost", "127.0.0.1")
    identity = (f"system:node:{node}", ("system:nodes",))
    return [
        Leaf(str(files.pki / "kubelet-client"), *identity, client=True, conf=str(files.kubelet_conf), host=leg),
        Leaf(str(files.pki / "kubelet"), *identity, sans=names, server=True),
        *(
            Leaf(str(files.pki / name), user, groups, names, server=True, client=True, conf=str(conf), host=leg)
            for name, user, groups, conf in (
                ("kube-proxy", "system:kube-proxy", ("system:node-proxier",), files.kube_proxy_conf),
                ("flannel", "system:flannel", (), files.flannel_conf),
                ("csi-companion", "system:tiphys:csi-companion", (), files.csi_companion_conf),
            )
        ),
    ]


def fingerprint(leaf: Leaf, authority_pem: bytes, settings: Settings) -> str:
    """What a certificate was made for; when it differs, it is made anew."""
    ports = (settings.ports.apiserver, settings.ports.apiserver_grpc) if leaf.conf else ()
    text = json.dumps([asdict(leaf), settings.name, ports])
    return hashlib.sha256(text.encode() + authority_pem).hexdigest()


def is_due(end: str, now: datetime) -> bool:
    """Whether a certificate that ends then (ISO 8601) is to be renewed."""
    try:
        return datetime.fromisoformat(end) - now < RENEW_BEFORE
    except ValueError:
        return True


class Pki:
    """Makes and keeps the files of wanted()."""

    def __init__(self, layout: Layout, settings: Settings, clock: Clock) -> None:
        self._layout = layout
        self._settings = settings
        self._clock = clock
        self._index_path = layout.pki / "index.json"
        self._index: dict[str, dict[str, str]] = self._read_index()

    def ensure(self) -> list[str]:
        """Have every file, fresh; the paths that were made. Blocks; raises OSError."""
        made = [name for name in ("ca", "front-proxy-ca") if self._ensure_authority(name)]
        for leaf in wanted(self._layout, self._settings):
            if self._ensure_leaf(leaf):
                made.append(leaf.path)
        if self._ensure_service_account_key():
            made.append("sa")
        if made:
            write_atomic(self._index_path, json.dumps(self._index, indent=1))
        return made

    def _read_index(self) -> dict[str, dict[str, str]]:
        with contextlib.suppress(OSError, ValueError):
            index = json.loads(self._index_path.read_text())
            if isinstance(index, dict):
                return index
        return {}

    def _file(self, name: str, suffix: str) -> Path:
        return self._layout.pki / f"{name}.{suffix}"

    def _ensure_authority(self, name: str) -> bool:
        cert, key = self._file(name, "crt"), self._file(name, "key")
        known = self._index.get(name, {})
        if _all_exist([cert, key]) and not is_due(known.get("end", ""), self._clock.now()):
            return False
        from tiphys_component.certificates import CertificateAuthority

        now = self._clock.now()
        authority = CertificateAuthority.create(f"{self._settings.name}-{name}", validity=_CA_VALIDITY, now=now)
        authority.credential.write(cert, key)
        self._index[name] = {"end": (now + _CA_VALIDITY).isoformat()}
        return True

    def _ensure_leaf(self, leaf: Leaf) -> bool:
        authority_pem = self._file(leaf.authority, "crt").read_bytes()
        mark = fingerprint(leaf, authority_pem, self._settings)
        files = [Path(f"{leaf.path}.crt"), Path(f"{leaf.path}.key"), *([Path(leaf.conf)] if leaf.conf else [])]
        known = self._index.get(leaf.path, {})
        if _all_exist(files) and known.get("mark") == mark and not is_due(known.get("end", ""), self._clock.now()):
            return False
        from tiphys_component.certificates import CertificateAuthority

        now = self._clock.now()
        authority = CertificateAuthority.load(self._file(leaf.authority, "crt"), self._file(leaf.authority, "key"))
        credential = authority.issue(
            leaf.common_name,
            organizations=leaf.organizations,
            sans=leaf.sans,
            server=leaf.server,
            client=leaf.client,
            validity=_VALIDITY,
            now=now,
        )
        credential.write(files[0], files[1])
        if leaf.conf:
            self._write_conf(leaf, authority_pem, credential.cert_pem, credential.key_pem)
        self._index[leaf.path] = {"mark": mark, "end": (now + _VALIDITY).astimezone(UTC).isoformat()}
        return True

    def _write_conf(self, leaf: Leaf, ca_pem: bytes, cert_pem: bytes, key_pem: bytes) -> None:
        ports = self._settings.ports
        access = Access(
            cluster=f"tiphys-{self._settings.name}",
            server=f"https://{leaf.host}:{ports.apiserver}",
            grpc_address=f"{leaf.host}:{ports.apiserver_grpc}",
            user=leaf.common_name,
            ca_pem=ca_pem,
            cert_pem=cert_pem,
            key_pem=key_pem,
        )
        write_atomic(Path(leaf.conf), render(access))

    def _ensure_service_account_key(self) -> bool:
        private, public = self._file("sa", "key"), self._file("sa", "pub")
        if _all_exist([private, public]):
            return False
        from tiphys_component.certificates import create_service_account_key

        private_pem, public_pem = create_service_account_key()
        write_atomic(private, private_pem)
        write_atomic(public, public_pem, mode=0o644)
        return True


def _all_exist(paths: Iterable[Path]) -> bool:
    return all(path.exists() for path in paths)
