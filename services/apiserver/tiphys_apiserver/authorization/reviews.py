"""Reviews of authorization.k8s.io: may someone do something, and what may I do. Answered, never stored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tiphys.api.authorization.v1 import authorization_pb2
from tiphys_apimachinery.errors import BadRequest, FieldError, Invalid
from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.authorization.interface import Attributes, Authorizer, RuleResolver, Verdict

_GROUP = "authorization.k8s.io"


def attributes_of(user: UserInfo, spec: Any) -> Attributes:
    """The question in a review's spec; the spec has either resource or non-resource attributes."""
    if spec.HasField("resourceAttributes"):
        about = spec.resourceAttributes
        return Attributes(
            user,
            about.verb,
            True,
            api_group=about.group,
            api_version=about.version,
            resource=about.resource,
            subresource=about.subresource,
            namespace=about.namespace,
            name=about.name,
            field_selector=about.fieldSelector.rawSelector or _field_text(about.fieldSelector.requirements),
            label_selector=about.labelSelector.rawSelector or _label_text(about.labelSelector.requirements),
        )
    return Attributes(user, spec.nonResourceAttributes.verb, False, path=spec.nonResourceAttributes.path)


def _field_text(requirements: Iterable[Any]) -> str:
    signs = {"In": "=", "NotIn": "!="}
    terms = [
        f"{term.key}{signs[term.operator]}{term.values[0]}"
        for term in requirements
        if term.operator in signs and len(term.values) == 1
    ]
    return ",".join(terms)


def _label_text(requirements: Iterable[Any]) -> str:
    signs = {"In": "in", "NotIn": "notin"}
    terms = []
    for term in requirements:
        if term.operator in signs:
            terms.append(f"{term.key} {signs[term.operator]} ({','.join(term.values)})")
        else:
            terms.append(term.key if term.operator == "Exists" else f"!{term.key}")
    return ",".join(terms)


def _spec_errors(spec: Any) -> list[FieldError]:
    resource, other = spec.HasField("resourceAttributes"), spec.HasField("nonResourceAttributes")
    if resource and other:
        return [
            FieldError.invalid(
                "spec.nonResourceAttributes",
                "",
                "cannot be specified in combination with resourceAttributes",
            )
        ]
    if not resource and not other:
        return [
            FieldError.invalid(
                "spec.resourceAttributes",
                "",
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )
        ]
    return [error for kind in ("fieldSelector", "labelSelector") for error in _selector_errors(spec, kind)]


def _selector_errors(spec: Any, kind: str) -> list[FieldError]:
    if not _says(spec, kind):
        return []
    selector, path = getattr(spec.resourceAttributes, kind), f"spec.resourceAttributes.{kind}"
    if selector.rawSelector and selector.requirements:
        problem = "may not be specified at the same time as requirements"
        return [FieldError.invalid(f"{path}.rawSelector", selector.rawSelector, problem)]
    if not selector.rawSelector and not selector.requirements:
        return [FieldError.required(f"{path}.requirements", "requirements or rawSelector must be specified")]
    return []


def _says(spec: Any, field: str) -> bool:
    return bool(spec.HasField("resourceAttributes") and spec.resourceAttributes.HasField(field))


async def _judge(authorizer: Authorizer, attributes: Attributes, status: Any) -> None:
    decision = await authorizer.authorize(attributes)
    status.allowed = decision.allowed
    if decision.verdict is Verdict.DENY:
        status.denied = True
    if decision.reason:
        status.reason = decision.reason


class SubjectAccessReviews:
    """May this user do that? Serves the cluster-wide and the local kind."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def create(self, user: UserInfo, obj: Any, *, namespace: str = "", name: str = "") -> Any:
        """The review with its verdict. Raises Invalid, and BadRequest for a local review of another namespace."""
        kind = obj.DESCRIPTOR.name
        spec = obj.spec
        errors = _spec_errors(spec)
        if not spec.user and not spec.groups:
            errors.append(FieldError.invalid("spec.user", "", "at least one of user or group must be specified"))
        if kind == "LocalSubjectAccessReview":
            if spec.HasField("nonResourceAttributes"):
                errors.append(
                    FieldError.invalid(
                        "spec.nonResourceAttributes",
                        "",
                        "disallowed on this kind of request",
                    )
                )
            elif spec.resourceAttributes.namespace != namespace:
                raise BadRequest(f"spec.resourceAttributes.namespace must match namespace: {namespace}")
        if errors:
            raise Invalid.of(kind, "", errors, group=_GROUP)
        extra = {key: tuple(value.items) for key, value in spec.extra.items()}
        subject = UserInfo(spec.user, spec.uid, tuple(spec.groups), extra)
        answer = type(obj)()
        answer.CopyFrom(obj)
        answer.ClearField("status")
        await _judge(self._authorizer, attributes_of(subject, spec), answer.status)
        return answer


class SelfSubjectAccessReviews:
    """May I do that?"""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def create(self, user: UserInfo, obj: Any, *, namespace: str = "", name: str = "") -> Any:
        """The review with its verdict. Raises Invalid."""
        errors = _spec_errors(obj.spec)
        if errors:
            raise Invalid.of("SelfSubjectAccessReview", "", errors, group=_GROUP)
        answer = authorization_pb2.SelfSubjectAccessReview()
        answer.CopyFrom(obj)
        answer.ClearField("status")
        await _judge(self._authorizer, attributes_of(user, obj.spec), answer.status)
        return answer


class SelfSubjectRulesReviews:
    """What may I do in a namespace?"""

    def __init__(self, resolver: RuleResolver) -> None:
        self._resolver = resolver

    async def create(self, user: UserInfo, obj: Any, *, namespace: str = "", name: str = "") -> Any:
        """The review with all rules that are known. Raises BadRequest where no namespace is named."""
        if not obj.spec.namespace:
            raise BadRequest("no namespace on request")
        rules = await self._resolver.rules_for(user, obj.spec.namespace)
        answer = authorization_pb2.SelfSubjectRulesReview()
        answer.CopyFrom(obj)
        answer.ClearField("status")
        status = answer.status
        for rule in rules.resource_rules:
            status.resourceRules.add(
                verbs=rule.verbs, apiGroups=rule.api_groups, resources=rule.resources, resourceNames=rule.resource_names
            )
        for path_rule in rules.non_resource_rules:
            status.nonResourceRules.add(verbs=path_rule.verbs, nonResourceURLs=path_rule.paths)
        status.incomplete = rules.incomplete
        if rules.evaluation_error:
            status.evaluationError = rules.evaluation_error
        return answer
