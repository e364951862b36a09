"""Issues what the containers of docker-compose.yml show each other; run once before them, again at each `up`.

Each container has a folder of its own and sees no other's key. Two authorities: etcd trusts one that signs for the API
server alone, so nobody else gets at the store. What is there and good for another quarter of a year is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from tiphys_cluster.kubeconfig import Access, render
from tiphys_cluster.pki import is_due
from tiphys_cluster.settings import write_atomic
from tiphys_component.certificates import CertificateAuthority, create_service_account_key
from tiphys_component.clock import Clock, SystemClock
from tiphys_component.options import LogOptions, flag, parse

_VALIDITY = timedelta(days=365)
_AUTHORITY_VALIDITY = timedelta(days=3650)
_CLUSTER = "tiphys-compose"
_LOCAL = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(LogOptions):
    """Issues certificates and kubeconfigs into a folder for each container."""

    folder: Path = flag("--folder", default=Path("/pki"), help="where each container's folder lies")
    apiserver: str = flag("--apiserver", default="apiserver", help="name of the API server's container")
    apiserver_ip: str = flag("--apiserver-ip", help="its address, by which pods know it")
    service_ip: str = flag("--kubernetes-service-ip", default="10.96.0.1", help="address of the Service kubernetes")
    port: int = flag("--port", default=6443, help="port of the API server on this machine's loopback")
    grpc_port: int = flag("--grpc-port", default=6444, help="the same of gRPC")
    nodes: tuple[str, ...] = flag("--node", default=(), help="a node as NAME=ADDRESS; repeated or parted by commas")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate FOLDER/NAME.crt and its key; with reaches, NAME.conf as well.

    reaches are the addresses of the API server for HTTPS and gRPC.
    """

    folder: str
    name: str
    common_name: str
    organizations: tuple[str, ...] = ()
    sans: tuple[str, ...] = ()
    authority: str = "ca"
    is_server: bool = False
    is_client: bool = True
    reaches: tuple[str, str] | None = None


def wanted(options: Options) -> list[Leaf]:
    """Everything to issue. Names and groups are Kubernetes' (kubeadm's list of certificates)."""
    inside = (f"{options.apiserver}:6443", f"{options.apiserver}:6444")
    outside = (f"127.0.0.1:{options.port}", f"127.0.0.1:{options.grpc_port}")
    kubernetes = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    names = (options.apiserver, *_LOCAL, options.apiserver_ip, options.service_ip, *kubernetes)
    masters = ("system:masters",)
    leaves = [
        Leaf("admin", "admin", "kubernetes-admin", masters, reaches=outside),
        Leaf("etcd", "server", "etcd", sans=("etcd", *_LOCAL), authority="etcd-ca", is_server=True),
        Leaf("apiserver", "etcd-client", "kube-apiserver", authority="etcd-ca"),
        Leaf("apiserver", "server", "kube-apiserver", sans=names, is_server=True, is_client=False),
        Leaf("apiserver", "kubelet-client", "kube-apiserver-kubelet-client", masters),
    ]
    for component in ("controller-manager", "scheduler", "cluster-dns"):
        user = f"system:{'' if component == 'cluster-dns' else 'kube-'}{component}"
        leaves.append(Leaf(component, "server", user, sans=(component, *_LOCAL), is_server=True, reaches=inside))
    for node in options.nodes:
        name, _, address = node.partition("=")
        leaves += _node(name, address, inside)
    return leaves


def _node(name: str, address: str, inside: tuple[str, str]) -> Iterator[Leaf]:
    identity, sans = (f"system:node:{name}", ("system:nodes",)), (name, address, *_LOCAL)
    yield Leaf(name, "kubelet", *identity, sans=sans, is_server=True, reaches=inside)
    yield Leaf(
        name, "kube-proxy", "system:kube-proxy", ("system:node-proxier",), sans=sans, is_server=True, reaches=inside
    )
    yield Leaf(name, "flannel", "system:flannel", sans=sans, is_server=True, reaches=inside)


class Issuer:
    """Keeps the folders as wanted() has them; the authorities' keys lie in FOLDER/authority, which no service has."""

    def __init__(self, options: Options, clock: Clock) -> None:
        self._folder = options.folder
        self._options = options
        self._now = clock.now()
        self._index_path = self._folder / "authority" / "index.json"
        self._index: dict[str, dict[str, str]] = {}

    def ensure(self) -> list[str]:
        """Have every file, fresh; the files that were made. Raises OSError; ValueError for a node without address."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            self._index = json.loads(self._index_path.read_text())
        authorities = {name: self._ensure_authority(name) for name in ("ca", "etcd-ca")}
        made = [
            name for leaf in wanted(self._options) if (name := self._ensure_leaf(leaf, authorities[leaf.authority]))
        ]
        made += self._ensure_service_account_key()
        self._hand_out_authorities(authorities)
        write_atomic(self._index_path, json.dumps(self._index, indent=1))
        return made

    def _ensure_authority(self, name: str) -> CertificateAuthority:
        cert, key = (self._folder / "authority" / f"{name}.{suffix}" for suffix in ("crt", "key"))
        if cert.exists() and key.exists() and not is_due(self._index.get(name, {}).get("end", ""), self._now):
            return CertificateAuthority.load(cert, key)
        cert.parent.mkdir(parents=True, exist_ok=True)
        authority = CertificateAuthority.create(f"{_CLUSTER}-{name}", validity=_AUTHORITY_VALIDITY, now=self._now)
        authority.credential.write(cert, key)
        self._index[name] = {"end": (self._now + _AUTHORITY_VALIDITY).isoformat()}
        return authority

    def _ensure_leaf(self, leaf: Leaf, authority: CertificateAuthority) -> str:
        """The leaf's name where it had to be made, otherwise nothing."""
        base = self._folder / leaf.folder / leaf.name
        files = [base.with_suffix(suffix) for suffix in (".crt", ".key", *((".conf",) if leaf.reaches else ()))]
        name = f"{leaf.folder}/{leaf.name}"
        issuer_pem = authority.credential.cert_pem
        mark = hashlib.sha256(json.dumps(asdict(leaf)).encode() + issuer_pem).hexdigest()
        known = self._index.get(name, {})
        is_kept = known.get("mark") == mark and not is_due(known.get("end", ""), self._now)
        if is_kept and all(path.exists() for path in files):
            return ""
        base.parent.mkdir(parents=True, exist_ok=True)
        credential = authority.issue(
            leaf.common_name,
            organizations=leaf.organizations,
            sans=leaf.sans,
            server=leaf.is_server,
            client=leaf.is_client,
            validity=_VALIDITY,
            now=self._now,
        )
        credential.write(files[0], files[1])
        if leaf.reaches is not None:
            server, grpc_address = leaf.reaches
            access = Access(
                cluster=_CLUSTER,
                server=f"https://{server}",
                grpc_address=grpc_address,
                user=leaf.common_name,
                ca_pem=issuer_pem,
                cert_pem=credential.cert_pem,
                key_pem=credential.key_pem,
            )
            write_atomic(files[2], render(access))
        self._index[name] = {"mark": mark, "end": (self._now + _VALIDITY).isoformat()}
        return name

    def _ensure_service_account_key(self) -> list[str]:
        private, public = (self._folder / "apiserver" / name for name in ("sa.key", "sa.pub"))
        if private.exists() and public.exists():
            return []
        private_pem, public_pem = create_service_account_key()
        write_atomic(private, private_pem)
        write_atomic(public, public_pem, mode=0o644)
        return ["apiserver/sa"]

    def _hand_out_authorities(self, authorities: dict[str, CertificateAuthority]) -> None:
        for leaf in wanted(self._options):
            path = self._folder / leaf.folder / f"{leaf.authority}.crt"
            write_atomic(path, authorities[leaf.authority].credential.cert_pem, mode=0o644)


def main(argv: Sequence[str] | None = None) -> int:
    """python -m tiphys_cluster.compose.certificates: issue what is missing; the exit code."""
    for name in Issuer(parse(Options, argv, prog="certificates"), SystemClock()).ensure():
        sys.stdout.write(f"issued {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
