"""Builds who is asked about callers: authenticators and authorizers in the order that the options name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tiphys_apiserver.authentication.anonymous import AnonymousFallback
from tiphys_apiserver.authentication.interface import MASTERS, Authenticator
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
from tiphys_apiserver.authentication.x509 import X509Authenticator
from tiphys_apiserver.authorization.escalation import EscalationCheck
from tiphys_apiserver.authorization.interface import Attributes, Authorizer, Decision, RuleResolver, Verdict
from tiphys_apiserver.authorization.node import NodeAuthorizer
from tiphys_apiserver.authorization.rbac import RBACAuthorizer
from tiphys_apiserver.authorization.rules import PolicyRule
from tiphys_apiserver.authorization.union import AlwaysAllow, PrivilegedGroups, UnionAuthorizer, UnionRuleResolver
from tiphys_apiserver.bootstrap.component_roles import NODE_RULES
from tiphys_apiserver.options import Options
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_component.app import StartupError
from tiphys_component.clock import Clock


@dataclass(frozen=True, slots=True)
class Authentication:
    """Who callers are, and the keys behind service account tokens; signer is None where no key signs."""

    authenticator: Authenticator
    keys: Mapping[str, VerifyingKey]
    signer: TokenSigner | None


@dataclass(frozen=True, slots=True)
class Authorization:
    """What callers may do; escalation is None without RBAC."""

    authorizer: Authorizer
    rules: RuleResolver
    escalation: EscalationCheck | None


def build_authentication(options: Options, objects: ObjectAccess, clock: Clock) -> Authentication:
    """The authenticators. Raises StartupError where a file can't be used."""
    authenticators: list[Authenticator] = []
    if options.client_ca_file is not None:
        pem = _read(options.client_ca_file, "--client-ca-file")
        try:
            authenticators.append(X509Authenticator(pem, clock))
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
    union: Authenticator = UnionAuthenticator(*authenticators)
    return Authentication(AnonymousFallback(union) if options.anonymous_auth else union, keys, signer)


class _AlwaysDeny:
    async def authorize(self, attributes: Attributes) -> Decision:
        """No."""
        return Decision(Verdict.NO_OPINION, "everything is forbidden")


def build_authorization(options: Options, objects: ObjectAccess) -> Authorization:
    """The authorizers in the order of --authorization-mode, behind the group that nobody can lock out."""
    masters = PrivilegedGroups(MASTERS)
    authorizers: list[Authorizer] = [masters]
    resolvers: list[RuleResolver] = [masters]
    rbac: RBACAuthorizer | None = None
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
        elif mode == "AlwaysAllow":
            authorizers.append(AlwaysAllow())
            resolvers.append(AlwaysAllow())
        else:
            authorizers.append(_AlwaysDeny())
    union = UnionAuthorizer(*authorizers)
    escalation = EscalationCheck(rbac, union) if rbac is not None else None
    return Authorization(union, UnionRuleResolver(resolvers), escalation)


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
