"""What an authorizer is asked and what it answers."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tiphys_apiserver.authentication.interface import UserInfo


@dataclass(frozen=True, slots=True)
class Attributes:
    """One question: may this user do this verb to that?

    verb is a Kubernetes verb (get list watch create update patch delete deletecollection, or a
    lower-case HTTP method for paths that are no resources). path is set for every request;
    resource, api_group, ... only where is_resource_request. Empty name means all names, empty
    namespace means cluster scope or all namespaces. "*" may stand for any value in reviews.
    field_selector and label_selector are the request's own texts.
    """

    user: UserInfo
    verb: str
    is_resource_request: bool
    path: str = ""
    api_group: str = ""
    api_version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    field_selector: str = ""
    label_selector: str = ""


class Verdict(enum.Enum):
    """ALLOW and DENY end the search; NO_OPINION leaves it to the next authorizer, and at last denies."""

    ALLOW = "allow"
    DENY = "deny"
    NO_OPINION = "no opinion"


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and, in words for people, its reason."""

    verdict: Verdict
    reason: str = ""

    @property
    def allowed(self) -> bool:
        """Whether the verdict is ALLOW."""
        return self.verdict is Verdict.ALLOW


class Authorizer(Protocol):
    """Answers questions from memory; it is asked on every request and must be quick."""

    async def authorize(self, attributes: Attributes) -> Decision:
        """Decide. Raises nothing: what cannot be evaluated is NO_OPINION with the error as reason."""
        ...


@dataclass(frozen=True, slots=True)
class ResourceRule:
    """What a user may do to resources, as SelfSubjectRulesReview shows it."""

    verbs: tuple[str, ...]
    api_groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NonResourceRule:
    """What a user may do to paths that are no resources."""

    verbs: tuple[str, ...]
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything known of what a user may do in a namespace; incomplete where an authorizer cannot list."""

    resource_rules: Sequence[ResourceRule] = ()
    non_resource_rules: Sequence[NonResourceRule] = ()
    incomplete: bool = False
    evaluation_error: str = ""


class RuleResolver(Protocol):
    """Lists rules instead of judging one question; an Authorizer may also be one."""

    async def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        """The user's rules in the namespace, cluster-wide ones included."""
        ...
