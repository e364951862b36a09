"""Kubernetes' authorizer library: whether somebody may do something, asked from within an expression.

Authorizers are asked asynchronously and expressions are not. A check that has no answer yet raises NotAsked; who
evaluates asks for it and evaluates again. Source: apiserver pkg/cel/library/authz.go.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

from tiphys_apimachinery.cel.overloads import Entry
from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.authorization.interface import Attributes, Decision

# Source: authz.go, the cost of one check.
_CHECK_COST: Final = 350_000
# By what was asked, without the user's extra values, which are no part of a key.
Question = tuple[str, ...]
Answers = MutableMapping[Question, Decision]


class NotAsked(Exception):
    """A check that has no answer yet."""

    def __init__(self, attributes: Attributes) -> None:
        super().__init__("an authorizer must be asked first")
        self.attributes = attributes

    @property
    def question(self) -> Question:
        """What the answer is kept by."""
        return _question(self.attributes)


@dataclass(frozen=True, slots=True)
class AuthorizerValue:
    """`authorizer`: checks on behalf of a user. answers are those that are known, by what was asked."""

    cel_type: ClassVar[str] = "kubernetes.authorization.Authorizer"
    user: UserInfo
    answers: Answers


@dataclass(frozen=True, slots=True)
class PathCheck:
    """A check of a path that is no resource."""

    cel_type: ClassVar[str] = "kubernetes.authorization.PathCheck"
    by: AuthorizerValue
    path: str


@dataclass(frozen=True, slots=True)
class GroupCheck:
    """A check of something in an API group."""

    cel_type: ClassVar[str] = "kubernetes.authorization.GroupCheck"
    by: AuthorizerValue
    group: str


@dataclass(frozen=True, slots=True)
class ResourceCheck:
    """A check of a resource; what is not said is all of it."""

    cel_type: ClassVar[str] = "kubernetes.authorization.ResourceCheck"
    by: AuthorizerValue
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    field_selector: str = ""
    label_selector: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an authorizer said."""

    cel_type: ClassVar[str] = "kubernetes.authorization.Decision"
    decision: Decision


def request_resource(by: AuthorizerValue, request: Any) -> ResourceCheck:
    """`authorizer.requestResource`: what the request itself is about. request is that of an AdmissionReview."""
    resource = request.get("requestResource") or request.get("resource") or {}
    return ResourceCheck(
        by,
        resource.get("group", ""),
        resource.get("resource", ""),
        request.get("requestSubResource", ""),
        request.get("namespace", ""),
        request.get("name", ""),
    )


def _account(by: AuthorizerValue, namespace: str, name: str) -> AuthorizerValue:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    user = UserInfo(name=f"system:serviceaccount:{namespace}:{name}", groups=groups)
    return AuthorizerValue(user, by.answers)


def _check_path(check: PathCheck, verb: str) -> Answer:
    return _answer(check.by, Attributes(check.by.user, verb, is_resource_request=False, path=check.path))


def _check_resource(check: ResourceCheck, verb: str) -> Answer:
    attributes = Attributes(
        check.by.user,
        verb,
        is_resource_request=True,
        api_group=check.group,
        api_version="*",
        resource=check.resource,
        subresource=check.subresource,
        namespace=check.namespace,
        name=check.name,
        field_selector=check.field_selector,
        label_selector=check.label_selector,
    )
    return _answer(check.by, attributes)


def _answer(by: AuthorizerValue, attributes: Attributes) -> Answer:
    decision = by.answers.get(_question(attributes))
    if decision is None:
        raise NotAsked(attributes)
    return Answer(decision)


def _question(asked: Attributes) -> Question:
    return (
        asked.user.name, asked.verb, asked.path, asked.api_group, asked.resource, asked.subresource, asked.namespace,
        asked.name, asked.field_selector, asked.label_selector,
    )  # fmt: skip


def _check_cost(*_args: Any) -> int:
    return _CHECK_COST


ENTRIES: Final = (
    Entry("AuthorizerValue.path(string): PathCheck", PathCheck),
    Entry("AuthorizerValue.group(string): GroupCheck", GroupCheck),
    Entry("AuthorizerValue.serviceAccount(string, string): AuthorizerValue", _account),
    Entry("GroupCheck.resource(string): ResourceCheck", lambda check, name: ResourceCheck(check.by, check.group, name)),
    Entry("ResourceCheck.subresource(string): ResourceCheck", lambda check, text: replace(check, subresource=text)),
    Entry("ResourceCheck.namespace(string): ResourceCheck", lambda check, text: replace(check, namespace=text)),
    Entry("ResourceCheck.name(string): ResourceCheck", lambda check, text: replace(check, name=text)),
    Entry(
        "ResourceCheck.fieldSelector(string): ResourceCheck", lambda check, text: replace(check, field_selector=text)
    ),
    Entry(
        "ResourceCheck.labelSelector(string): ResourceCheck", lambda check, text: replace(check, label_selector=text)
    ),
    Entry("PathCheck.check(string): Answer", _check_path, _check_cost),
    Entry("ResourceCheck.check(string): Answer", _check_resource, _check_cost),
    Entry("Answer.allowed(): bool", lambda answer: answer.decision.allowed),
    Entry("Answer.reason(): string", lambda answer: answer.decision.reason),
    Entry("Answer.errored(): bool", lambda _answer: False),
    Entry("Answer.error(): string", lambda _answer: ""),
)
