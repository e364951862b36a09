"""Policies and their bindings as the API has them, and which writes each is about. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tiphys_apimachinery.labels import Selector, from_label_selector
from tiphys_apiserver.admission.interface import AdmissionAttributes
from tiphys_apiserver.admission.webhooks.hooks import EXACT, IF_NEEDED, Rule, labels_match, read_rule

APPLY_CONFIGURATION = "ApplyConfiguration"


@dataclass(frozen=True, slots=True)
class NamedRule:
    """A rule that may hold for some names only."""

    rule: Rule
    names: frozenset[str]

    def matches(self, attributes: AdmissionAttributes, *, any_version: bool) -> bool:
        """Whether the write is one of them."""
        return self.rule.matches(attributes, any_version=any_version) and (
            not self.names or attributes.name in self.names
        )


@dataclass(frozen=True, slots=True)
class Scope:
    """MatchResources: which writes are meant."""

    rules: tuple[NamedRule, ...]
    excluded: tuple[NamedRule, ...]
    namespaces: Selector
    objects: Selector
    exact: bool

    def matches(self, attributes: AdmissionAttributes, labels: Mapping[str, str] | None, *, all_if_empty: bool) -> bool:
        """Whether the write is meant; labels are the namespace's. A binding without rules takes its policy's."""
        any_version = not self.exact
        if any(rule.matches(attributes, any_version=any_version) for rule in self.excluded):
            return False
        if labels is not None and not self.namespaces.matches(labels):
            return False
        if not labels_match(self.objects, attributes):
            return False
        if not self.rules:
            return all_if_empty
        return any(rule.matches(attributes, any_version=any_version) for rule in self.rules)


@dataclass(frozen=True, slots=True)
class Validation:
    """One rule of a policy."""

    expression: str
    message: str
    message_expression: str
    reason: str


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change of a mutating policy: an object to be merged, or operations of a patch."""

    expression: str
    merges: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """An admission policy of either kind. param_kind is (apiVersion, kind), None for a policy without parameters."""

    name: str
    scope: Scope
    validations: tuple[Validation, ...]
    conditions: tuple[tuple[str, str], ...]
    variables: tuple[tuple[str, str], ...]
    fails_closed: bool
    param_kind: tuple[str, str] | None
    mutations: tuple[Mutation, ...] = ()
    again_if_needed: bool = False


@dataclass(frozen=True, slots=True)
class Parameters:
    """Where a binding's parameters are: by name, or all that a selector takes."""

    name: str
    namespace: str
    selector: Selector | None
    denies_if_missing: bool


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding of a policy; a mutating one has no actions."""

    name: str
    policy: str
    scope: Scope | None
    actions: frozenset[str]
    parameters: Parameters | None


def read_policy(obj: Any) -> Policy:
    """The policy in a message."""
    spec = obj.spec
    return Policy(
        name=obj.metadata.name,
        scope=_scope(spec.matchConstraints),
        validations=tuple(
            Validation(item.Expression, item.message, item.messageExpression, item.reason)
            for item in getattr(spec, "validations", ())
        ),
        conditions=tuple((item.name, item.expression) for item in spec.matchConditions),
        variables=tuple(_variable(item) for item in spec.variables),
        fails_closed=spec.failurePolicy != "Ignore",
        param_kind=(spec.paramKind.apiVersion, spec.paramKind.kind) if spec.HasField("paramKind") else None,
        mutations=tuple(_mutation(item) for item in getattr(spec, "mutations", ())),
        again_if_needed=getattr(spec, "reinvocationPolicy", "") == IF_NEEDED,
    )


def _mutation(item: Any) -> Mutation:
    merges = item.patchType == APPLY_CONFIGURATION
    return Mutation(item.applyConfiguration.expression if merges else item.jsonPatch.expression, merges)


def _variable(item: Any) -> tuple[str, str]:
    names = item.DESCRIPTOR.fields_by_name
    upper = "Name" in names
    return (item.Name, item.Expression) if upper else (item.name, item.expression)


def read_binding(obj: Any) -> Binding:
    """The binding in a message."""
    spec = obj.spec
    reference = spec.paramRef
    parameters = None
    if spec.HasField("paramRef"):
        selector = from_label_selector(reference.selector) if reference.HasField("selector") else None
        denies = reference.parameterNotFoundAction != "Allow"
        parameters = Parameters(reference.name, reference.namespace, selector, denies)
    return Binding(
        name=obj.metadata.name,
        policy=spec.policyName,
        scope=_scope(spec.matchResources) if spec.HasField("matchResources") else None,
        actions=frozenset(getattr(spec, "validationActions", ())),
        parameters=parameters,
    )


def _scope(match: Any) -> Scope:
    return Scope(
        rules=_rules(match.resourceRules),
        excluded=_rules(match.excludeResourceRules),
        namespaces=_selector(match, "namespaceSelector"),
        objects=_selector(match, "objectSelector"),
        exact=match.matchPolicy == EXACT,
    )


def _selector(match: Any, name: str) -> Selector:
    return from_label_selector(getattr(match, name)) if match.HasField(name) else Selector.everything()


def _rules(items: Iterable[Any]) -> tuple[NamedRule, ...]:
    return tuple(NamedRule(read_rule(item.ruleWithOperations), frozenset(item.resourceNames)) for item in items)
