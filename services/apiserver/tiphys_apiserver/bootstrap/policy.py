"""The shape of the RBAC bootstrap tables: roles, rules, subjects and bindings as plain values.

The tables themselves are user_roles, component_roles, controller_roles and namespaced_roles; rbac.py writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

READ = "get list watch"
WRITE = "create delete deletecollection patch update"
READ_WRITE = "create delete deletecollection get list patch update watch"

AUTOUPDATE_ANNOTATION = "rbac.authorization.kubernetes.io/autoupdate"
BOOTSTRAP_LABEL = "kubernetes.io/bootstrapping"
BOOTSTRAP_LABEL_VALUE = "rbac-defaults"
AGGREGATE_LABEL_PREFIX = "rbac.authorization.k8s.io/aggregate-to-"
RBAC_GROUP = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class Rule:
    """One PolicyRule. A rule holds either api_groups and resources, or urls."""

    verbs: tuple[str, ...]
    api_groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RoleSpec:
    """A Role where namespace is set, else a ClusterRole. aggregate_from names the aggregate-to- label it selects."""

    name: str
    rules: tuple[Rule, ...] = ()
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    aggregate_from: str = ""


@dataclass(frozen=True, slots=True)
class SubjectSpec:
    """Who is bound. kind is User, Group or ServiceAccount; only the last has a namespace."""

    kind: str
    name: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class BindingSpec:
    """A RoleBinding where namespace is set, else a ClusterRoleBinding."""

    name: str
    role_kind: str
    role_name: str
    subjects: tuple[SubjectSpec, ...]
    namespace: str = ""


def allow(verbs: str, groups: str, resources: str, *, names: str = "") -> Rule:
    """A rule on resources. Each argument is a list parted by blanks; the core group is written `core`."""
    api_groups = tuple("" if group == "core" else group for group in groups.split())
    return Rule(tuple(verbs.split()), api_groups, tuple(resources.split()), tuple(names.split()))


def allow_urls(verbs: str, urls: str) -> Rule:
    """A rule on non-resource URLs, parted by blanks."""
    return Rule(tuple(verbs.split()), urls=tuple(urls.split()))


def aggregate_to(*roles: str) -> dict[str, str]:
    """The labels that add a cluster role's rules to the aggregated roles named."""
    return {f"{AGGREGATE_LABEL_PREFIX}{role}": "true" for role in roles}


def user(name: str) -> SubjectSpec:
    """A user by name."""
    return SubjectSpec("User", name)


def group(name: str) -> SubjectSpec:
    """A group by name."""
    return SubjectSpec("Group", name)


def service_account(name: str, namespace: str = "kube-system") -> SubjectSpec:
    """A service account."""
    return SubjectSpec("ServiceAccount", name, namespace)


def bind_cluster_role(role: str, *subjects: SubjectSpec, name: str = "") -> BindingSpec:
    """A ClusterRoleBinding to role; it has the role's name unless another is given."""
    return BindingSpec(name or role, "ClusterRole", role, subjects)


def bind_role(namespace: str, role: str, *subjects: SubjectSpec, name: str = "") -> BindingSpec:
    """A RoleBinding in namespace to a Role there; it has the role's name unless another is given."""
    return BindingSpec(name or role, "Role", role, subjects, namespace)


# Every controller and most components write events, in either group.
WRITE_EVENTS = allow("create patch update", "core events.k8s.io", "events")
