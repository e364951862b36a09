"""Flags of the API server, with Kubernetes' names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tiphys_apiserver.security_options import SecurityOptions
from tiphys_apiserver.server.egress import ProxyAddress, read_proxy
from tiphys_component.options import flag

DEFAULT_HOME = Path("/var/lib/tiphys/default")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(SecurityOptions):
    """The Tiphys API server: the only door to the store, by REST and gRPC."""

    # -- where it listens
    bind_address: tuple[str, ...] = flag(
        "--bind-address", default=("0.0.0.0",), help="addresses to listen on; repeated or parted by commas"
    )
    secure_port: int = flag("--secure-port", default=6443, help="port of HTTPS; 0 takes a free one")
    grpc_port: int = flag("--grpc-port", default=6444, help="port of gRPC; 0 takes a free one, -1 serves no gRPC")
    grpc_token_port: int = flag(
        "--grpc-token-port",
        default=-1,
        help="port of gRPC for callers who show a bearer token and no certificate; 0 takes a free one, -1 serves none",
    )
    insecure_port: int = flag("--insecure-port", default=0, help="port of plain HTTP without checks; 0 is off")
    insecure_bind_address: str = flag(
        "--insecure-bind-address", default="127.0.0.1", help="loopback address of the plain port"
    )
    advertise_address: str = flag(
        "--advertise-address",
        default="",
        help="address by which nodes and pods reach this server; it listens there too",
    )

    # -- what it keeps
    store: Literal["sqlite", "etcd", "memory"] = flag("--store", "--storage", default="sqlite", help="kind of store")
    store_file: Path = flag(
        "--store-file", "--sqlite-path", default=DEFAULT_HOME / "store" / "tiphys.db", help="file of the SQLite store"
    )
    history_s: float = flag(
        "--history",
        default=900.0,
        duration=True,
        help="how long the store keeps what was, at least: for watches that resume, and lists at a past moment",
    )
    etcd_servers: tuple[str, ...] = flag("--etcd-servers", default=(), help="URLs of etcd, parted by commas")
    etcd_prefix: str = flag("--etcd-prefix", default="/registry", help="prefix of all keys in etcd")
    etcd_cafile: Path | None = flag("--etcd-cafile", default=None, help="authority that signed etcd's certificate")
    etcd_certfile: Path | None = flag("--etcd-certfile", default=None, help="client certificate for etcd")
    etcd_keyfile: Path | None = flag("--etcd-keyfile", default=None, help="key of the client certificate for etcd")

    # -- who it is, and whom it trusts
    tls_cert_file: Path | None = flag("--tls-cert-file", default=None, help="certificate of HTTPS and gRPC")
    tls_private_key_file: Path | None = flag("--tls-private-key-file", default=None, help="key of the certificate")
    client_ca_file: Path | None = flag(
        "--client-ca-file", default=None, help="authorities whose client certificates are accepted"
    )
    token_auth_file: Path | None = flag(
        "--token-auth-file", default=None, help="static tokens, one line of token,user,uid,groups each"
    )
    anonymous_auth: bool = flag(
        "--anonymous-auth", default=True, help="let requests without credentials in as system:anonymous"
    )
    service_account_key_file: tuple[str, ...] = flag(
        "--service-account-key-file", default=(), help="public keys that verify service account tokens"
    )
    service_account_signing_key_file: Path | None = flag(
        "--service-account-signing-key-file", default=None, help="private key that signs service account tokens"
    )
    service_account_issuer: tuple[str, ...] = flag(
        "--service-account-issuer",
        default=("https://kubernetes.default.svc.cluster.local",),
        help="issuer of service account tokens; the first signs, all are accepted",
    )
    api_audiences: tuple[str, ...] = flag(
        "--api-audiences", default=(), help="audiences of tokens for this server; the issuers by default"
    )
    authorization_mode: tuple[str, ...] = flag(
        "--authorization-mode",
        default=("Node", "RBAC"),
        help="AlwaysAllow, AlwaysDeny, ABAC, Node, RBAC, Webhook; asked in order",
    )

    # -- kubelets
    kubelet_client_certificate: Path | None = flag(
        "--kubelet-client-certificate", default=None, help="client certificate shown to kubelets"
    )
    kubelet_client_key: Path | None = flag("--kubelet-client-key", default=None, help="key of that certificate")
    kubelet_certificate_authority: Path | None = flag(
        "--kubelet-certificate-authority", default=None, help="authority that signed the kubelets' certificates"
    )

    # -- pods, services and aggregated API servers
    egress_proxy: tuple[str, ...] = flag(
        "--egress-proxy",
        default=(),
        help="HTTP proxies (http://HOST:PORT) by which pods and services are reached; directly by default",
    )
    proxy_client_cert_file: Path | None = flag(
        "--proxy-client-cert-file", default=None, help="client certificate shown to aggregated API servers"
    )
    proxy_client_key_file: Path | None = flag("--proxy-client-key-file", default=None, help="key of that certificate")

    # -- what it hands out
    service_cluster_ip_range: str = flag(
        "--service-cluster-ip-range", default="10.96.0.0/12", help="addresses of services"
    )
    service_node_port_range: str = flag(
        "--service-node-port-range", default="30000-32767", help="ports of services on nodes"
    )

    # -- how much it takes
    max_requests_inflight: int = flag(
        "--max-requests-inflight",
        default=400,
        help="most reading requests at once; 0 is no limit; with priority and fairness a part of the levels' seats",
    )
    max_mutating_requests_inflight: int = flag(
        "--max-mutating-requests-inflight",
        default=200,
        help="most writing requests at once; 0 is no limit; with priority and fairness the other part of the seats",
    )
    request_timeout_s: float = flag(
        "--request-timeout",
        default=60.0,
        duration=True,
        help="how long a request may take that is no watch or tunnel, from its head on; a caller may ask for less",
    )
    shutdown_delay_s: float = flag(
        "--shutdown-delay-duration",
        default=0.0,
        duration=True,
        help="how long the server serves on, unready, after it was told to stop",
    )
    enable_priority_and_fairness: bool = flag(
        "--enable-priority-and-fairness",
        default=True,
        help="let FlowSchemas and PriorityLevelConfigurations decide who waits; else only the two limits count",
    )
    disable_admission_plugins: tuple[str, ...] = flag(
        "--disable-admission-plugins", default=(), help="admission plug-ins to leave out"
    )

    def __post_init__(self) -> None:
        """Raises ValueError for values that exclude each other."""
        self.node_port_range()
        self.egress_proxies()
        if self.store == "etcd" and not self.etcd_servers:
            raise ValueError("--store=etcd needs --etcd-servers")
        known = {"ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"}
        unknown = [mode for mode in self.authorization_mode if mode not in known]
        if unknown or not self.authorization_mode:
            raise ValueError(
                f"--authorization-mode: {', '.join(unknown) or 'nothing'} is not of {', '.join(sorted(known))}"
            )
        for mode, file, name in (
            ("ABAC", self.authorization_policy_file, "--authorization-policy-file"),
            ("Webhook", self.authorization_webhook_config_file, "--authorization-webhook-config-file"),
        ):
            if (mode in self.authorization_mode) != (file is not None):
                raise ValueError(f"{name} goes with --authorization-mode={mode}, and neither without the other")
        for fault in self.security_faults():
            raise ValueError(fault)
        if self.insecure_port and self.insecure_bind_address not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError("--insecure-bind-address must be a loopback address: that port checks nothing")

    def node_port_range(self) -> tuple[int, int]:
        """First and last port. Raises ValueError."""
        low, dash, high = self.service_node_port_range.partition("-")
        if not (dash and low.isdigit() and high.isdigit() and 0 < int(low) <= int(high) < 65536):
            raise ValueError(f"--service-node-port-range: {self.service_node_port_range!r} is not FIRST-LAST")
        return int(low), int(high)

    def egress_proxies(self) -> tuple[ProxyAddress, ...]:
        """The proxies by which pods and services are reached. Raises ValueError."""
        try:
            return tuple(read_proxy(text) for text in self.egress_proxy)
        except ValueError as err:
            raise ValueError(f"--egress-proxy: {err}") from err

    def audiences(self) -> tuple[str, ...]:
        """What a token must be meant for."""
        return self.api_audiences or self.service_account_issuer

    def hosts(self) -> tuple[str, ...]:
        """Every address to listen on."""
        covered = {"0.0.0.0", "::", self.advertise_address} & set(self.bind_address)
        if self.advertise_address and not covered:
            return (*self.bind_address, self.advertise_address)
        return self.bind_address
