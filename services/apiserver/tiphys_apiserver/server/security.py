"""Builds who is asked about callers: authenticators and authorizers in the order that the options name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tiphys_apiserver.authentication.anonymous import AnonymousFallback
from tiphys_apiserver.authentication.bootstrap_token import BootstrapTokenAuthenticator
from tiphys_apiserver.authentication.document_fetcher import DocumentFetcher
from tiphys_apiserver.authentication.interface import MASTERS, Authenticator
from tiphys_apiserver.authentication.oidc import OIDCAuthenticator, OIDCSettings
from tiphys_apiserver.authentication.request_header import RequestHeaderAuthenticator, RequestHeaders
from tiphys_apiserver.authentication.review_client import ReviewClient
from tiphys_apiserver.authentication.service_account_token import ServiceAccountAuthenticator, TokenSigner
from tiphys_apiserver.authentication.signing_keys import (
    KeyFileError,
    SigningKey,
    VerifyingKey,
    load_signing_key,
    load_verifying_keys,
)
from tiphys_apiserver.authentication.token_file import TokenFileAuthenticator, TokenFileError
from tiphys_apiserver.authentication.union import UnionAuthenticator
from tiphys_apiserver.authentication.webhook import WebhookTokenAuthenticator
from tiphys_apiserver.authentication.x509 import X509Authenticator
from tiphys_apiserver.authorization.abac import ABACAuthorizer
from tiphys_apiserver.authorization.escalation import EscalationCheck
from tiphys_apiserver.authorization.interface import Attributes, Authorizer, Decision, RuleResolver, Verdict
from tiphys_apiserver.authorization.node import NodeAuthorizer
from tiphys_apiserver.authorization.rbac import RBACAuthorizer
from tiphys_apiserver.authorization.rules import PolicyRule
from tiphys_apiserver.authorization.union import AlwaysAllow, PrivilegedGroups, UnionAuthorizer, UnionRuleResolver
from tiphys_apiserver.authorization.webhook import WebhookAuthorizer
from tiphys_apiserver.bootstrap.component_roles import NODE_RULES
from tiphys_apiserver.options import Options
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_client.kubeconfig import KubeconfigError
from tiphys_client.kubeconfig import load as load_kubeconfig
from tiphys_component.app import StartupError
from tiphys_component.clock import Clock
from tiphys_component.metrics import Registry


@dataclass(frozen=True, slots=True)
class Authentication:
    """Who callers are, and the keys behind service account tokens; signer is None where no key signs."""

    authenticator: Authenticator
    keys: Mapping[str, VerifyingKey]
    signer: TokenSigner | None
    # Clients of outside services, to be closed at the end.
    clients: tuple[ReviewClient, ...] = ()


@dataclass(frozen=True, slots=True)
class Authorization:
    """What callers may do; escalation is None without RBAC."""

    authorizer: Authorizer
    rules: RuleResolver
    escalation: EscalationCheck | None
    clients: tuple[ReviewClient, ...] = ()


def build_authentication(options: Options, objects: ObjectAccess, clock: Clock, metrics: Registry) -> Authentication:
    """The authenticators. Raises StartupError where a file can't be used."""
    authenticators: list[Authenticator] = []
    if options.requestheader_client_ca_file is not None:
        authenticators.append(_front_proxies(options, options.requestheader_client_ca_file, clock))
    if options.client_ca_file is not None:
        pem = _read(options.client_ca_file, "--client-ca-file")
        try:
            certificates = X509Authenticator(pem, clock, reread=options.client_ca_file.read_bytes)
            authenticators.append(certificates)
            certificates.lifetimes = _lifetimes(metrics)
        except ValueError as err:
            raise _unusable(options.client_ca_file, "--client-ca-file", str(err)) from err
    if options.token_auth_file is not None:
        text = _read(options.token_auth_file, "--token-auth-file").decode()
        try:
            authenticators.append(TokenFileAuthenticator(text))
        except TokenFileError as err:
            raise _unusable(options.token_auth_file, "--token-auth-file", str(err)) from err
    keys: dict[str, VerifyingKey] = {}
    for name in options.service_account_key_file:
        for key in _load(Path(name), "--service-account-key-file", load_verifying_keys):
            keys[key.key_id] = key
    signer = None
    if options.service_account_signing_key_file is not None:
        path, flag = options.service_account_signing_key_file, "--service-account-signing-key-file"
        signing: SigningKey = _load(path, flag, load_signing_key)
        keys.setdefault(signing.public.key_id, signing.public)
        signer = TokenSigner(options.service_account_issuer[0], signing)
    if keys:
        issuers = options.service_account_issuer
        authenticators.append(
            ServiceAccountAuthenticator(issuers, keys, api_audiences=options.audiences(), objects=objects, clock=clock)
        )
    if options.enable_bootstrap_token_auth:
        authenticators.append(BootstrapTokenAuthenticator(objects, clock))
    if options.oidc_issuer_url:
        authenticators.append(_oidc(options, clock))
    clients: list[ReviewClient] = []
    if options.authentication_token_webhook_config_file is not None:
        path, flag = options.authentication_token_webhook_config_file, "--authentication-token-webhook-config-file"
        clients.append(_review_client(path, flag, clock))
        version, ttl_s = options.authentication_token_webhook_version, options.authentication_token_webhook_cache_ttl_s
        authenticators.append(WebhookTokenAuthenticator(clients[0], clock, version=version, cache_ttl_s=ttl_s))
    union: Authenticator = UnionAuthenticator(*authenticators)
    authenticator = AnonymousFallback(union) if options.anonymous_auth else union
    return Authentication(authenticator, keys, signer, tuple(clients))


def _lifetimes(metrics: Registry) -> Callable[[float], None]:
    """Counts how long the certificates that clients show still hold."""
    # Source: kubernetes apiserver pkg/authentication/request/x509/x509.go.
    bounds = (0, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 345600, 604800, 2592000, 7776000, 15552000, 31104000)
    name = "apiserver_client_certificate_expiration_seconds"
    return metrics.quick_histogram(name, "Seconds that clients' certificates still hold.", (), bounds).labels().observe


def _front_proxies(options: Options, path: Path, clock: Clock) -> Authenticator:
    flag = "--requestheader-client-ca-file"
    try:
        proxies = X509Authenticator(_read(path, flag), clock, reread=path.read_bytes)
    except ValueError as err:
        raise _unusable(path, flag, str(err)) from err
    headers = RequestHeaders(
        _lower(options.requestheader_username_headers),
        _lower(options.requestheader_uid_headers),
        _lower(options.requestheader_group_headers),
        _lower(options.requestheader_extra_headers_prefix),
    )
    return RequestHeaderAuthenticator(proxies, options.requestheader_allowed_names, headers)


def _lower(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.lower() for name in names)


def _oidc(options: Options, clock: Clock) -> Authenticator:
    settings = OIDCSettings(
        issuer=options.oidc_issuer_url,
        client_id=options.oidc_client_id,
        username_claim=options.oidc_username_claim,
        username_prefix=options.oidc_username_prefix,
        groups_claim=options.oidc_groups_claim,
        groups_prefix=options.oidc_groups_prefix,
        signing_algs=options.oidc_signing_algs,
        required_claims=options.oidc_required_claim,
    )
    try:
        fetcher = DocumentFetcher(options.oidc_ca_file)
    except OSError as err:
        raise StartupError(f"--oidc-ca-file: {options.oidc_ca_file} can't be used: {err}", "correct the file") from err
    return OIDCAuthenticator(settings, fetcher, clock)


def _review_client(path: Path, flag: str, clock: Clock) -> ReviewClient:
    try:
        return ReviewClient(load_kubeconfig(path), clock)
    except (KubeconfigError, ValueError, OSError) as err:
        raise _unusable(path, flag, str(err)) from err


class _AlwaysDeny:
    async def authorize(self, attributes: Attributes) -> Decision:
        """No."""
        return Decision(Verdict.NO_OPINION, "everything is forbidden")


def build_authorization(options: Options, objects: ObjectAccess, clock: Clock) -> Authorization:
    """The authorizers in the order of --authorization-mode, behind the group that nobody can lock out."""
    masters = PrivilegedGroups(MASTERS)
    authorizers: list[Authorizer] = [masters]
    resolvers: list[RuleResolver] = [masters]
    rbac: RBACAuthorizer | None = None
    clients: list[ReviewClient] = []
    for mode in options.authorization_mode:
        if mode == "RBAC":
            rbac = RBACAuthorizer(objects)
            authorizers.append(rbac)
            resolvers.append(rbac)
        elif mode == "Node":
            rules = [
                PolicyRule(rule.verbs, rule.api_groups, rule.resources, rule.resource_names, rule.urls)
                for rule in NODE_RULES
            ]
            node = NodeAuthorizer(objects, rules)
            authorizers.append(node)
            resolvers.append(node)
        elif mode == "ABAC" and options.authorization_policy_file is not None:
            abac = _abac(options.authorization_policy_file)
            authorizers.append(abac)
            resolvers.append(abac)
        elif mode == "Webhook" and options.authorization_webhook_config_file is not None:
            path, flag = options.authorization_webhook_config_file, "--authorization-webhook-config-file"
            clients.append(_review_client(path, flag, clock))
            webhook = WebhookAuthorizer(
                clients[-1],
                clock,
                version=options.authorization_webhook_version,
                allowed_ttl_s=options.authorization_webhook_cache_authorized_ttl_s,
                refused_ttl_s=options.authorization_webhook_cache_unauthorized_ttl_s,
            )
            authorizers.append(webhook)
            resolvers.append(webhook)
        elif mode == "AlwaysAllow":
            authorizers.append(AlwaysAllow())
            resolvers.append(AlwaysAllow())
        else:
            authorizers.append(_AlwaysDeny())
    union = UnionAuthorizer(*authorizers)
    escalation = EscalationCheck(rbac, union) if rbac is not None else None
    return Authorization(union, UnionRuleResolver(resolvers), escalation, tuple(clients))


def _abac(path: Path) -> ABACAuthorizer:
    flag = "--authorization-policy-file"
    try:
        return ABACAuthorizer(_read(path, flag).decode())
    except ValueError as err:
        raise _unusable(path, flag, str(err)) from err


T = TypeVar("T")


def _read(path: Path, flag: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise StartupError(
            f"{flag}: {path} can't be read: {err.strerror}", "make the file or correct the flag"
        ) from err


def _load(path: Path, flag: str, load: Callable[[bytes], T]) -> T:
    try:
        return load(_read(path, flag))
    except KeyFileError as err:
        raise _unusable(path, flag, str(err)) from err


def _unusable(path: Path, flag: str, why: str) -> StartupError:
    return StartupError(f"{flag}: {path} can't be used: {why}", "replace the file or correct the flag")
