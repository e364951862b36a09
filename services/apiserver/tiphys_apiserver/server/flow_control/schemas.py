"""FlowSchemas compiled: which requests they match, and to which flow and level they send them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.authorization.rules import url_matches
from tiphys_apiserver.server.flow_control.seats import Level, LevelSettings
from tiphys_apiserver.server.request_info import RequestInfo

_ALL = "*"
_SERVICE_ACCOUNT = "system:serviceaccount:"
BY_USER = "ByUser"
BY_NAMESPACE = "ByNamespace"
# Source: kube-apiserver's pkg/apis/flowcontrol/v1/defaults.go and the field's description.
DEFAULT_SHARES = 30


@dataclass(frozen=True, slots=True)
class Subjects:
    """Who a rule is about; a service account is a user, and namespaces are those of whose accounts all are meant."""

    users: frozenset[str]
    groups: frozenset[str]
    namespaces: tuple[str, ...]

    def match(self, user: UserInfo) -> bool:
        """Whether the user is among them."""
        if _ALL in self.users or _ALL in self.groups or user.name in self.users:
            return True
        if not self.groups.isdisjoint(user.groups):
            return True
        return bool(self.namespaces) and user.name.startswith(self.namespaces)


@dataclass(frozen=True, slots=True)
class ResourceRule:
    """Requests for resources; everything must match."""

    verbs: frozenset[str]
    groups: frozenset[str]
    resources: frozenset[str]
    namespaces: frozenset[str]
    cluster_scope: bool

    def match(self, info: RequestInfo) -> bool:
        """Whether the request is one of them."""
        resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
        if not (_has(self.verbs, info.verb) and _has(self.groups, info.api_group) and _has(self.resources, resource)):
            return False
        return _has(self.namespaces, info.namespace) if info.namespace else self.cluster_scope


@dataclass(frozen=True, slots=True)
class PathRule:
    """Requests for other paths; everything must match."""

    verbs: frozenset[str]
    urls: tuple[str, ...]

    def match(self, info: RequestInfo) -> bool:
        """Whether the request is one of them."""
        return _has(self.verbs, info.verb) and any(url_matches(url, info.path) for url in self.urls)


@dataclass(frozen=True, slots=True)
class Rule:
    """Certain requests of certain subjects."""

    subjects: Subjects
    resources: tuple[ResourceRule, ...]
    paths: tuple[PathRule, ...]

    def match(self, user: UserInfo, info: RequestInfo) -> bool:
        """Whether a request of the user is one of them."""
        rules: Iterable[ResourceRule | PathRule] = self.resources if info.is_resource_request else self.paths
        return any(rule.match(info) for rule in rules) and self.subjects.match(user)


def _has(values: frozenset[str], wanted: str) -> bool:
    return wanted in values or _ALL in values


@dataclass(slots=True, eq=False)
class Flow:
    """A FlowSchema in use: its rules, its level, and what it has counted."""

    name: str
    precedence: int
    distinguisher: str
    rules: tuple[Rule, ...]
    level: Level
    # What answers tell about it.
    headers: tuple[tuple[str, str], ...] = ()
    dispatched: int = 0

    def match(self, user: UserInfo, info: RequestInfo) -> bool:
        """Whether the schema is about a request."""
        return any(rule.match(user, info) for rule in self.rules)

    def key(self, user: UserInfo, info: RequestInfo) -> str:
        """The flow of a request: those of one flow share queues."""
        if self.distinguisher == BY_USER:
            return f"{self.name}\0{user.name}"
        if self.distinguisher == BY_NAMESPACE:
            return f"{self.name}\0{info.namespace}"
        return self.name


def compile_schema(schema: Any, level: Level) -> Flow:
    """A FlowSchema as it is used."""
    spec = schema.spec
    uids = (
        ("X-Kubernetes-PF-FlowSchema-UID", schema.metadata.uid),
        ("X-Kubernetes-PF-PriorityLevel-UID", level.settings.uid),
    )
    distinguisher = spec.distinguisherMethod.type if spec.HasField("distinguisherMethod") else ""
    rules = tuple(_rule(rule) for rule in spec.rules)
    return Flow(schema.metadata.name, spec.matchingPrecedence, distinguisher, rules, level, uids)


def _rule(rule: Any) -> Rule:
    users: set[str] = set()
    namespaces: list[str] = []
    for subject in rule.subjects:
        if subject.kind == "User":
            users.add(subject.user.name)
        elif subject.kind == "ServiceAccount":
            prefix = f"{_SERVICE_ACCOUNT}{subject.serviceAccount.namespace}:"
            if subject.serviceAccount.name == _ALL:
                namespaces.append(prefix)
            else:
                users.add(prefix + subject.serviceAccount.name)
    groups = frozenset(subject.group.name for subject in rule.subjects if subject.kind == "Group")
    resources = tuple(
        ResourceRule(
            frozenset(one.verbs),
            frozenset(one.apiGroups),
            frozenset(one.resources),
            frozenset(one.namespaces),
            one.clusterScope,
        )
        for one in rule.resourceRules
    )
    paths = tuple(PathRule(frozenset(one.verbs), tuple(one.nonResourceURLs)) for one in rule.nonResourceRules)
    return Rule(Subjects(frozenset(users), groups, tuple(namespaces)), resources, paths)


def level_settings(item: Any) -> LevelSettings:
    """What a PriorityLevelConfiguration says."""
    name, uid, spec = item.metadata.name, item.metadata.uid, item.spec
    if spec.type == "Exempt":
        exempt = spec.exempt
        return LevelSettings(
            name=name,
            uid=uid,
            exempt=True,
            shares=exempt.nominalConcurrencyShares,
            lendable_percent=exempt.lendablePercent,
        )
    limited = spec.limited
    response = limited.limitResponse
    queuing = response.queuing if response.type == "Queue" else None
    return LevelSettings(
        name=name,
        uid=uid,
        shares=limited.nominalConcurrencyShares if limited.HasField("nominalConcurrencyShares") else DEFAULT_SHARES,
        lendable_percent=limited.lendablePercent,
        most_percent=limited.borrowingLimitPercent if limited.HasField("borrowingLimitPercent") else None,
        queues=queuing.queues if queuing is not None else 0,
        hand_size=queuing.handSize if queuing is not None else 1,
        queue_length=queuing.queueLengthLimit if queuing is not None else 0,
    )
