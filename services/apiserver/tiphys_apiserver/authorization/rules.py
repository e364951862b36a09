"""What RBAC rules allow, and whether one set of rules covers another. Values in, values out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tiphys_apiserver.authorization.interface import Attributes

ALL = "*"


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A PolicyRule of rbac.authorization.k8s.io as a value that may be a key."""

    verbs: tuple[str, ...]
    api_groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()
    non_resource_urls: tuple[str, ...] = ()

    @classmethod
    def from_message(cls, rule: Any) -> PolicyRule:
        """The value of a PolicyRule message."""
        return cls(
            tuple(rule.verbs),
            tuple(rule.apiGroups),
            tuple(rule.resources),
            tuple(rule.resourceNames),
            tuple(rule.nonResourceURLs),
        )

    def describe(self) -> str:
        """The rule in one line, as refusals of escalation show it."""
        named = (
            ("APIGroups", self.api_groups),
            ("Resources", self.resources),
            ("NonResourceURLs", self.non_resource_urls),
            ("ResourceNames", self.resource_names),
            ("Verbs", self.verbs),
        )
        parts = (f"{name}:[{' '.join(_quote(value) for value in values)}]" for name, values in named if values)
        return "{" + ", ".join(parts) + "}"


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def rule_allows(rule: PolicyRule, attributes: Attributes) -> bool:
    """Whether this one rule allows the request."""
    if not _has(rule.verbs, attributes.verb):
        return False
    if not attributes.is_resource_request:
        return any(url_matches(pattern, attributes.path) for pattern in rule.non_resource_urls)
    if not _has(rule.api_groups, attributes.api_group):
        return False
    if not resource_matches(rule.resources, attributes.resource, attributes.subresource):
        return False
    return not rule.resource_names or attributes.name in rule.resource_names


def rules_allow(rules: Iterable[PolicyRule], attributes: Attributes) -> bool:
    """Whether any of the rules allows the request."""
    return any(rule_allows(rule, attributes) for rule in rules)


def resource_matches(resources: tuple[str, ...], resource: str, subresource: str) -> bool:
    """Whether a rule's resources name the resource: `pods`, `pods/log`, `*/scale` or `*`, which is subresources too."""
    if ALL in resources:
        return True
    if not subresource:
        return resource in resources
    return f"{resource}/{subresource}" in resources or f"*/{subresource}" in resources


def url_matches(pattern: str, path: str) -> bool:
    """Whether a rule's URL names the path; a star at the end stands for any rest."""
    if pattern in (ALL, path):
        return True
    return pattern.endswith("*") and path.startswith(pattern.rstrip("*"))


def _has(values: tuple[str, ...], wanted: str) -> bool:
    return wanted in values or ALL in values


def uncovered(owner: Iterable[PolicyRule], wanted: Iterable[PolicyRule]) -> list[PolicyRule]:
    """What the owner's rules do not grant of the rules wanted, broken down as far as verb, group, resource and name.

    A wildcard is covered by a wildcard only.
    """
    held = list(owner)
    return [single for rule in wanted for single in _break_down(rule) if not any(_covers(own, single) for own in held)]


def _break_down(rule: PolicyRule) -> Iterator[PolicyRule]:
    for verb in rule.verbs:
        for group in rule.api_groups:
            for resource in rule.resources:
                if not rule.resource_names:
                    yield PolicyRule((verb,), (group,), (resource,))
                for name in rule.resource_names:
                    yield PolicyRule((verb,), (group,), (resource,), (name,))
        for url in rule.non_resource_urls:
            yield PolicyRule((verb,), non_resource_urls=(url,))


def _covers(own: PolicyRule, single: PolicyRule) -> bool:
    if not _has(own.verbs, single.verbs[0]):
        return False
    if single.non_resource_urls:
        return any(url_matches(pattern, single.non_resource_urls[0]) for pattern in own.non_resource_urls)
    if not _has(own.api_groups, single.api_groups[0]):
        return False
    resource, _, subresource = single.resources[0].partition("/")
    if not resource_matches(own.resources, resource, subresource):
        return False
    if not own.resource_names:
        return True
    return bool(single.resource_names) and single.resource_names[0] in own.resource_names


def compact(rules: Iterable[PolicyRule]) -> list[PolicyRule]:
    """Join rules that differ in nothing but their verbs, for people to read."""
    verbs: dict[PolicyRule, list[str]] = {}
    for rule in rules:
        seen = verbs.setdefault(replace(rule, verbs=()), [])
        seen.extend(verb for verb in rule.verbs if verb not in seen)
    return [replace(rule, verbs=tuple(found)) for rule, found in verbs.items()]
