"""Flags that say who callers may be, what they may do, and what is noted of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tiphys_component.options import LogOptions, flag


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityOptions(LogOptions):
    """The part of the server's options that only experts of its safety change."""

    # -- who callers are, beside certificates, static tokens and service accounts
    enable_bootstrap_token_auth: bool = flag(
        "--enable-bootstrap-token-auth",
        default=False,
        help="take tokens of Secrets of type bootstrap.kubernetes.io/token",
    )
    authentication_token_webhook_config_file: Path | None = flag(
        "--authentication-token-webhook-config-file", default=None, help="kubeconfig of the service that knows tokens"
    )
    authentication_token_webhook_cache_ttl_s: float = flag(
        "--authentication-token-webhook-cache-ttl", default=120.0, duration=True, help="how long its answers are kept"
    )
    authentication_token_webhook_version: Literal["v1", "v1beta1"] = flag(
        "--authentication-token-webhook-version", default="v1beta1", help="version of the TokenReviews it is asked"
    )
    oidc_issuer_url: str = flag("--oidc-issuer-url", default="", help="OpenID issuer whose ID tokens are accepted")
    oidc_client_id: str = flag("--oidc-client-id", default="", help="for whom ID tokens must be made")
    oidc_ca_file: Path | None = flag(
        "--oidc-ca-file", default=None, help="authority that signed the issuer's certificate; the system's by default"
    )
    oidc_username_claim: str = flag("--oidc-username-claim", default="sub", help="claim that is the user's name")
    oidc_username_prefix: str = flag(
        "--oidc-username-prefix",
        default="",
        help="put before names; - is nothing, and without it the issuer's URL and # where the claim is not email",
    )
    oidc_groups_claim: str = flag("--oidc-groups-claim", default="", help="claim that lists the user's groups")
    oidc_groups_prefix: str = flag("--oidc-groups-prefix", default="", help="put before groups")
    oidc_required_claim: Mapping[str, str] = flag(
        "--oidc-required-claim", default={}, help="KEY=VALUE that must be in ID tokens; may be repeated"
    )
    oidc_signing_algs: tuple[str, ...] = flag(
        "--oidc-signing-algs", default=("RS256",), help="algorithms that ID tokens may be signed by"
    )
    requestheader_client_ca_file: Path | None = flag(
        "--requestheader-client-ca-file",
        default=None,
        help="authority of front proxies, which name the user in headers",
    )
    requestheader_allowed_names: tuple[str, ...] = flag(
        "--requestheader-allowed-names",
        default=(),
        help="names of front proxies; any that the authority signed by default",
    )
    requestheader_username_headers: tuple[str, ...] = flag(
        "--requestheader-username-headers", default=("X-Remote-User",), help="headers that name the user"
    )
    requestheader_uid_headers: tuple[str, ...] = flag(
        "--requestheader-uid-headers", default=(), help="headers with the user's uid"
    )
    requestheader_group_headers: tuple[str, ...] = flag(
        "--requestheader-group-headers", default=("X-Remote-Group",), help="headers that name groups"
    )
    requestheader_extra_headers_prefix: tuple[str, ...] = flag(
        "--requestheader-extra-headers-prefix", default=("X-Remote-Extra-",), help="starts of headers with extra values"
    )

    # -- what callers may do
    authorization_policy_file: Path | None = flag(
        "--authorization-policy-file", default=None, help="ABAC policies, one line of JSON each, for the mode ABAC"
    )
    authorization_webhook_config_file: Path | None = flag(
        "--authorization-webhook-config-file", default=None, help="kubeconfig of the service asked in the mode Webhook"
    )
    authorization_webhook_cache_authorized_ttl_s: float = flag(
        "--authorization-webhook-cache-authorized-ttl", default=300.0, duration=True, help="how long a yes is kept"
    )
    authorization_webhook_cache_unauthorized_ttl_s: float = flag(
        "--authorization-webhook-cache-unauthorized-ttl", default=30.0, duration=True, help="how long a no is kept"
    )
    authorization_webhook_version: Literal["v1", "v1beta1"] = flag(
        "--authorization-webhook-version", default="v1beta1", help="version of the SubjectAccessReviews it is asked"
    )

    # -- what lies encrypted in the store
    encryption_provider_config: Path | None = flag(
        "--encryption-provider-config",
        default=None,
        help="EncryptionConfiguration: what is encrypted, by which keys",
    )
    encryption_provider_config_automatic_reload: bool = flag(
        "--encryption-provider-config-automatic-reload", default=False, help="look each minute whether it has changed"
    )

    # -- what is noted
    audit_policy_file: Path | None = flag(
        "--audit-policy-file", default=None, help="audit.k8s.io/v1 Policy: of which requests how much is noted"
    )
    audit_log_path: str = flag(
        "--audit-log-path", default="", help="file of audit events, one line of JSON each; - is standard output"
    )
    audit_webhook_config_file: Path | None = flag(
        "--audit-webhook-config-file", default=None, help="kubeconfig of a service that is sent audit events"
    )
    audit_log_maxsize: int = flag(
        "--audit-log-maxsize", default=100, help="megabytes at which the audit log is put aside; 0 is never"
    )
    audit_log_maxbackup: int = flag(
        "--audit-log-maxbackup", default=0, help="most audit logs kept that were put aside; 0 keeps all"
    )
    audit_log_maxage: int = flag(
        "--audit-log-maxage", default=0, help="days that audit logs are kept; 0 keeps them for good"
    )

    def security_faults(self) -> list[str]:
        """What excludes each other, or lacks its other half."""
        faults = []
        if bool(self.oidc_issuer_url) != bool(self.oidc_client_id):
            faults.append("--oidc-issuer-url and --oidc-client-id go together")
        if self.oidc_issuer_url and not self.oidc_issuer_url.startswith("https://"):
            faults.append(f"--oidc-issuer-url: {self.oidc_issuer_url!r} does not begin with https://")
        return faults
