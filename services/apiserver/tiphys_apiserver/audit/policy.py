"""The audit policy (audit.k8s.io/v1 Policy): of which requests how much is noted. The first rule that fits decides."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tiphys_apimachinery.codec import yaml_codec
from tiphys_apimachinery.errors import BadRequest
from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.server.request_info import RequestInfo

_API_VERSION = "audit.k8s.io/v1"
# What must not lie readable in a log unless a rule names it: a catch-all rule notes of these no more than Metadata.
# kube-apiserver leaves that to the policy's author, and logs of real clusters were found full of passwords for it.
_GUARDED = frozenset(
    {("", "secrets"), ("", "serviceaccounts/token"), ("authentication.k8s.io", "tokenreviews")},
)


class PolicyError(ValueError):
    """The policy file can't be used; the message names the rule."""


class Level(enum.IntEnum):
    """How much is noted of a request; each level notes what those before it do."""

    NONE = 0
    METADATA = 1
    REQUEST = 2
    REQUEST_RESPONSE = 3

    @property
    def text(self) -> str:
        """As the policy and the events write it."""
        return _LEVEL_TEXTS[self]


class Stage(enum.Enum):
    """Where a request stands when an event is written."""

    REQUEST_RECEIVED = "RequestReceived"
    RESPONSE_STARTED = "ResponseStarted"
    RESPONSE_COMPLETE = "ResponseComplete"
    PANIC = "Panic"


_LEVEL_TEXTS = {
    Level.NONE: "None",
    Level.METADATA: "Metadata",
    Level.REQUEST: "Request",
    Level.REQUEST_RESPONSE: "RequestResponse",
}
_LEVELS = {text: level for level, text in _LEVEL_TEXTS.items()}
_STAGES = {stage.value: stage for stage in Stage}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is noted of one request: how much, at which stages not, and whether managed fields are left out."""

    level: Level
    omit_stages: frozenset[Stage] = frozenset()
    omit_managed_fields: bool = False


NOTHING = Verdict(Level.NONE)


@dataclass(frozen=True, slots=True)
class GroupResources:
    """Resources of one API group; no resources are all of them, and so are no names."""

    group: str
    resources: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()

    def fits(self, info: RequestInfo) -> bool:
        """Whether the request is for one of them."""
        if self.group != info.api_group:
            return False
        if not self.resources:
            return True
        if self.names and info.name not in self.names:
            return False
        whole = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
        return any(_resource_fits(wanted, whole, info) for wanted in self.resources)


def _resource_fits(wanted: str, whole: str, info: RequestInfo) -> bool:
    if wanted in ("*", whole):
        return True
    if info.subresource and wanted == f"*/{info.subresource}":
        return True
    return wanted == f"{info.resource}/*"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; what is empty fits everything."""

    verdict: Verdict
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    verbs: frozenset[str] = frozenset()
    resources: tuple[GroupResources, ...] = ()
    namespaces: frozenset[str] = frozenset()
    urls: tuple[str, ...] = ()

    def fits(self, user: UserInfo, info: RequestInfo) -> bool:
        """Whether the rule speaks of the request."""
        if self.users and user.name not in self.users:
            return False
        if self.groups and self.groups.isdisjoint(user.groups):
            return False
        if self.verbs and info.verb not in self.verbs:
            return False
        if self.resources or self.namespaces:
            return info.is_resource_request and self._resource_fits(info)
        if self.urls:
            return not info.is_resource_request and any(_url_fits(wanted, info.path) for wanted in self.urls)
        return True

    def _resource_fits(self, info: RequestInfo) -> bool:
        if self.namespaces and info.namespace not in self.namespaces:
            return False
        return not self.resources or any(resources.fits(info) for resources in self.resources)

    def names(self, group: str, whole: str) -> bool:
        """Whether the rule names this resource itself, not by a pattern."""
        return any(item.group == group and whole in item.resources for item in self.resources)


def _url_fits(wanted: str, path: str) -> bool:
    return path.startswith(wanted[:-1]) if wanted.endswith("*") else path == wanted


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules in order."""

    rules: tuple[Rule, ...]

    def judge(self, user: UserInfo, info: RequestInfo) -> Verdict:
        """What is noted of the request; nothing where no rule fits."""
        for rule in self.rules:
            if rule.fits(user, info):
                return _guarded(rule, info)
        return NOTHING


def _guarded(rule: Rule, info: RequestInfo) -> Verdict:
    verdict = rule.verdict
    if verdict.level <= Level.METADATA or not info.is_resource_request:
        return verdict
    whole = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    if (info.api_group, whole) not in _GUARDED or rule.names(info.api_group, whole):
        return verdict
    return Verdict(Level.METADATA, verdict.omit_stages, verdict.omit_managed_fields)


def read_policy(data: bytes) -> Policy:
    """The policy in a YAML or JSON file. Raises PolicyError."""
    try:
        document = yaml_codec.parse(data)
    except BadRequest as err:
        raise PolicyError(err.message) from err
    if not isinstance(document, dict):
        raise PolicyError("it is empty")
    kind = (document.get("apiVersion"), document.get("kind"))
    if kind != (_API_VERSION, "Policy"):
        raise PolicyError(f"it is no {_API_VERSION} Policy but {kind[0]!r} {kind[1]!r}")
    stages = _stages(document, "omitStages")
    managed = bool(document.get("omitManagedFields", False))
    rules = document.get("rules")
    if not isinstance(rules, list) or not rules:
        raise PolicyError("it has no rules")
    return Policy(tuple(_rule(rule, f"rules[{index}]", stages, managed) for index, rule in enumerate(rules)))


def _rule(document: Any, where: str, stages: frozenset[Stage], managed: bool) -> Rule:
    if not isinstance(document, dict):
        raise PolicyError(f"{where}: it is no mapping")
    text = document.get("level")
    level = _LEVELS.get(text) if isinstance(text, str) else None
    if level is None:
        raise PolicyError(f"{where}.level: {text!r} is not of {', '.join(_LEVELS)}")
    urls = _texts(document, "nonResourceURLs", where)
    resources = tuple(_resources(item, where) for item in document.get("resources") or ())
    namespaces = frozenset(_texts(document, "namespaces", where))
    if urls and (resources or namespaces):
        raise PolicyError(f"{where}.nonResourceURLs: a rule can't speak of both resources and other paths")
    for url in urls:
        if url != "*" and (not url.startswith("/") or "*" in url[:-1]):
            raise PolicyError(f"{where}.nonResourceURLs: {url!r} does not begin with '/' or has '*' before its end")
    own = document.get("omitManagedFields")
    return Rule(
        Verdict(level, stages | _stages(document, "omitStages", where), managed if own is None else bool(own)),
        users=frozenset(_texts(document, "users", where)),
        groups=frozenset(_texts(document, "userGroups", where)),
        verbs=frozenset(_texts(document, "verbs", where)),
        resources=resources,
        namespaces=namespaces,
        urls=urls,
    )


def _resources(document: Any, where: str) -> GroupResources:
    if not isinstance(document, dict):
        raise PolicyError(f"{where}.resources: an entry is no mapping")
    resources, names = _texts(document, "resources", where), _texts(document, "resourceNames", where)
    if names and not resources:
        raise PolicyError(f"{where}.resources: resourceNames need resources")
    return GroupResources(str(document.get("group") or ""), resources, frozenset(names))


def _texts(document: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    found = document.get(key) or ()
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise PolicyError(f"{where}.{key}: it is no list")
    return tuple(str(item) for item in found)


def _stages(document: dict[str, Any], key: str, where: str = "") -> frozenset[Stage]:
    found: Iterable[str] = _texts(document, key, where or "policy")
    unknown = [text for text in found if text not in _STAGES]
    if unknown:
        raise PolicyError(f"{where or 'policy'}.{key}: {unknown[0]!r} is not of {', '.join(_STAGES)}")
    return frozenset(_STAGES[text] for text in found)
