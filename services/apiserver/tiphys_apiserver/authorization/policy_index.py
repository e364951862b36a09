"""RBAC roles and bindings, compiled: what each subject may do, where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tiphys_apimachinery.labels import Selector, from_label_selector
from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.authorization.interface import Attributes
from tiphys_apiserver.authorization.rules import PolicyRule, resource_matches, url_matches

# A subject is one of these pairs; a service account is the user of its name.
Subject = tuple[str, str]

SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Role:
    """A Role (namespace set) or ClusterRole and its rules."""

    name: str
    namespace: str
    rules: tuple[PolicyRule, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    # Selectors of the cluster roles whose rules count as this role's too.
    aggregates: tuple[Selector, ...] = ()


@dataclass(frozen=True, slots=True)
class Binding:
    """A RoleBinding (namespace set) or ClusterRoleBinding."""

    name: str
    namespace: str
    role_kind: str
    role_name: str
    subjects: tuple[Subject, ...]

    @property
    def described(self) -> str:
        """The binding by kind and name, for the reason of a decision."""
        if self.namespace:
            return f'RoleBinding "{self.name}/{self.namespace}"'
        return f'ClusterRoleBinding "{self.name}"'


@dataclass(frozen=True, slots=True)
class Grant:
    """A binding with the rules of the role it names."""

    binding: Binding
    rules: tuple[PolicyRule, ...]


@dataclass(slots=True)
class PolicyIndex:
    """All grants by subject, cluster-wide ones and those of one namespace apart. Never changed after it is made."""

    cluster: Mapping[Subject, list[Grant]] = field(default_factory=dict)
    namespaced: Mapping[tuple[str, Subject], list[Grant]] = field(default_factory=dict)

    def grants(self, user: UserInfo, namespace: str) -> Iterator[Grant]:
        """Every grant that counts for the user in the namespace; only cluster-wide ones for namespace ""."""
        for subject in subjects_of(user):
            yield from self.cluster.get(subject, ())
            if namespace:
                yield from self.namespaced.get((namespace, subject), ())

    def rules(self, user: UserInfo, namespace: str) -> list[PolicyRule]:
        """Every rule that counts for the user in the namespace, each once."""
        return list(dict.fromkeys(rule for grant in self.grants(user, namespace) for rule in grant.rules))

    def question_scope(self, attributes: Attributes) -> Scope:
        """All that is granted for the question, whatever the object's name: the part worth remembering."""
        names: dict[str, Binding] = {}
        for grant in self.grants(attributes.user, attributes.namespace):
            for rule in grant.rules:
                if not _allows_kind(rule, attributes):
                    continue
                if not rule.resource_names or not attributes.is_resource_request:
                    return Scope(grant.binding, names)
                for name in rule.resource_names:
                    names.setdefault(name, grant.binding)
        return Scope(None, names)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which objects a user may do one verb to: all, through a binding, or some by name."""

    everything: Binding | None
    names: Mapping[str, Binding]

    def binding_for(self, name: str) -> Binding | None:
        """The binding that allows the name, or None."""
        return self.everything or self.names.get(name)


def _allows_kind(rule: PolicyRule, attributes: Attributes) -> bool:
    if attributes.verb not in rule.verbs and "*" not in rule.verbs:
        return False
    if not attributes.is_resource_request:
        return any(url_matches(pattern, attributes.path) for pattern in rule.non_resource_urls)
    if attributes.api_group not in rule.api_groups and "*" not in rule.api_groups:
        return False
    return resource_matches(rule.resources, attributes.resource, attributes.subresource)


def subjects_of(user: UserInfo) -> Iterator[Subject]:
    """The subjects that a user is: itself and each of its groups."""
    yield ("User", user.name)
    for group in user.groups:
        yield ("Group", group)


def build_index(roles: Iterable[Role], bindings: Iterable[Binding]) -> PolicyIndex:
    """Join bindings with their roles. A binding whose role is missing grants nothing until the role comes."""
    by_key = resolve_aggregation(list(roles))
    cluster: dict[Subject, list[Grant]] = {}
    namespaced: dict[tuple[str, Subject], list[Grant]] = {}
    for binding in bindings:
        role_namespace = binding.namespace if binding.role_kind == "Role" else ""
        rules = by_key.get((role_namespace, binding.role_name))
        if rules is None:
            continue
        grant = Grant(binding, rules)
        for subject in binding.subjects:
            if binding.namespace:
                namespaced.setdefault((binding.namespace, subject), []).append(grant)
            else:
                cluster.setdefault(subject, []).append(grant)
    return PolicyIndex(cluster, namespaced)


def resolve_aggregation(roles: Sequence[Role]) -> dict[tuple[str, str], tuple[PolicyRule, ...]]:
    """The rules of each role by (namespace, name), with those that it takes over from others by their labels.

    The aggregation controller writes the same into the role's own rules a moment later; here it counts at once.
    """
    cluster_roles = [role for role in roles if not role.namespace]
    rules = {(role.namespace, role.name): role.rules for role in roles}
    aggregating = [role for role in cluster_roles if role.aggregates]
    # An aggregated role may be aggregated in turn (view into edit into admin): go on until nothing grows.
    changed = bool(aggregating)
    while changed:
        changed = False
        for role in aggregating:
            key = (role.namespace, role.name)
            found = dict.fromkeys(rules[key])
            for other in cluster_roles:
                if other is not role and any(selector.matches(other.labels) for selector in role.aggregates):
                    found.update(dict.fromkeys(rules[("", other.name)]))
            if len(found) > len(rules[key]):
                rules[key] = tuple(found)
                changed = True
    return rules


def role_from_message(role: Any) -> Role:
    """The value of a Role or ClusterRole message."""
    rules = tuple(PolicyRule.from_message(rule) for rule in role.rules)
    aggregates: tuple[Selector, ...] = ()
    if "aggregationRule" in role.DESCRIPTOR.fields_by_name:
        aggregates = tuple(from_label_selector(selector) for selector in role.aggregationRule.clusterRoleSelectors)
    return Role(role.metadata.name, role.metadata.namespace, rules, dict(role.metadata.labels), aggregates)


def binding_from_message(binding: Any) -> Binding:
    """The value of a RoleBinding or ClusterRoleBinding message."""
    namespace = binding.metadata.namespace
    subjects = tuple(
        subject for subject in (_subject(item, namespace) for item in binding.subjects) if subject is not None
    )
    return Binding(binding.metadata.name, namespace, binding.roleRef.kind, binding.roleRef.name, subjects)


def _subject(subject: Any, binding_namespace: str) -> Subject | None:
    if subject.kind in ("User", "Group"):
        return (subject.kind, subject.name)
    if subject.kind == "ServiceAccount":
        namespace = subject.namespace or binding_namespace
        return ("User", f"{SERVICE_ACCOUNT_PREFIX}{namespace}:{subject.name}")
    return None
