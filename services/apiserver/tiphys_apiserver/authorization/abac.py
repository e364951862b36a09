"""ABAC: a file of policies, one line of JSON each, read at start; for those who come from it, RBAC says it better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tiphys_apiserver.authentication.interface import ALL_AUTHENTICATED, UserInfo
from tiphys_apiserver.authorization.interface import (
    Attributes,
    Decision,
    NonResourceRule,
    ResourceRule,
    Rules,
    Verdict,
)

_VERSION = "abac.authorization.kubernetes.io/v1beta1"
_READING = ("get", "list", "watch")
_ALLOW = Decision(Verdict.ALLOW)
_NO_POLICY = Decision(Verdict.NO_OPINION, "No policy matched.")


class PolicyFileError(ValueError):
    """The policy file is malformed; the message names the line."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One line. A member that is empty fits only what is empty; "*" fits everything."""

    user: str = ""
    group: str = ""
    readonly: bool = False
    api_group: str = ""
    resource: str = ""
    namespace: str = ""
    path: str = ""

    def speaks_of(self, user: UserInfo) -> bool:
        """Whether the policy is about the user; one that names neither user nor group is about nobody."""
        if self.user and self.user != user.name:
            return False
        if self.group and self.group not in user.groups:
            return False
        return bool(self.user or self.group)

    def allows(self, attributes: Attributes) -> bool:
        """Whether the policy allows a request of a user of whom it speaks."""
        if self.readonly and attributes.verb not in _READING:
            return False
        if not attributes.is_resource_request:
            return _fits(self.path, attributes.path) or (
                self.path.endswith("*") and attributes.path.startswith(self.path[:-1])
            )
        return (
            _fits(self.namespace, attributes.namespace)
            and _fits(self.resource, attributes.resource)
            and _fits(self.api_group, attributes.api_group)
        )


def _fits(wanted: str, value: str) -> bool:
    return wanted in ("*", value) and (bool(wanted) or not value)


class ABACAuthorizer:
    """Allows what one policy allows, and has no opinion on the rest."""

    def __init__(self, text: str) -> None:
        """Raises PolicyFileError."""
        self._policies = tuple(_read(text))

    async def authorize(self, attributes: Attributes) -> Decision:
        """Yes where a policy says so."""
        for policy in self._policies:
            if policy.speaks_of(attributes.user) and policy.allows(attributes):
                return _ALLOW
        return _NO_POLICY

    async def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        """All that the policies about the user say."""
        resources: list[ResourceRule] = []
        paths: list[NonResourceRule] = []
        for policy in self._policies:
            if not policy.speaks_of(user):
                continue
            verbs = _READING if policy.readonly else ("*",)
            if policy.resource and policy.namespace in ("*", namespace):
                resources.append(ResourceRule(verbs, (policy.api_group,), (policy.resource,)))
            if policy.path:
                paths.append(NonResourceRule(verbs, (policy.path,)))
        return Rules(resources, paths)


def _read(text: str) -> list[Policy]:
    policies = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            document = orjson.loads(stripped)
        except orjson.JSONDecodeError as err:
            raise PolicyFileError(f"line {number}: it is no JSON: {err}") from err
        if not isinstance(document, dict):
            raise PolicyFileError(f"line {number}: it is no JSON object")
        policies.append(_policy(document, number))
    return policies


def _policy(document: Mapping[str, Any], number: int) -> Policy:
    version, kind = document.get("apiVersion"), document.get("kind")
    if version is None and kind is None:
        return _unversioned(document)
    if (version, kind) != (_VERSION, "Policy"):
        raise PolicyFileError(f"line {number}: it is no {_VERSION} Policy but {version!r} {kind!r}")
    spec = document.get("spec")
    if not isinstance(spec, dict):
        raise PolicyFileError(f"line {number}: it has no spec")
    user, group = _subject(spec)
    return Policy(
        user,
        group,
        bool(spec.get("readonly")),
        str(spec.get("apiGroup") or ""),
        str(spec.get("resource") or ""),
        str(spec.get("namespace") or ""),
        str(spec.get("nonResourcePath") or ""),
    )


def _unversioned(document: Mapping[str, Any]) -> Policy:
    """The oldest form, without version, in which what is left out is everything.

    Source: kubernetes pkg/apis/abac/v0/conversion.go.
    """
    user, group = _subject(document)
    namespace, resource = str(document.get("namespace") or ""), str(document.get("resource") or "")
    return Policy(
        user,
        group if user or group else ALL_AUTHENTICATED,
        bool(document.get("readonly")),
        "*",
        resource or "*",
        namespace or "*",
        "" if namespace or resource else "*",
    )


def _subject(spec: Mapping[str, Any]) -> tuple[str, str]:
    """User and group; "*" in either is everybody who is authenticated."""
    user, group = str(spec.get("user") or ""), str(spec.get("group") or "")
    if "*" in (user, group):
        return ("" if user == "*" else user), ALL_AUTHENTICATED
    return user, group
