"""Policies and webhooks: their CEL is compiled when it is written, so that nobody finds out by a refused write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.admission.policies.variables import CONDITION_VARIABLES, POLICY_VARIABLES
from tiphys_apiserver.admission.webhooks.hooks import endpoint_faults
from tiphys_apiserver.cel.expressions import compile_expression
from tiphys_apiserver.registry.core.scheduling_validation import validate_label_selector
from tiphys_apiserver.registry.strategy import Strategy, WriteContext


class _CheckedStrategy(Strategy):
    """Rules beyond the schema that hold for a new object as for a changed one."""

    def faults(self, obj: Any) -> Iterator[FieldError]:
        """What the kind itself finds."""
        raise NotImplementedError

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of the schema, and of the kind."""
        return super().validate(ctx, obj) + list(self.faults(obj))

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same for a changed one."""
        return super().validate_update(ctx, new, old) + list(self.faults(new))


class PolicyStrategy(_CheckedStrategy):
    """The rules of ValidatingAdmissionPolicies."""

    def faults(self, obj: Any) -> Iterator[FieldError]:
        """Those of each expression and selector."""
        return _policy_faults(obj)


class MutatingPolicyStrategy(_CheckedStrategy):
    """The rules of MutatingAdmissionPolicies."""

    def faults(self, obj: Any) -> Iterator[FieldError]:
        """Those of each expression and selector, and of mutations."""
        return _mutation_faults(obj)


class BindingStrategy(_CheckedStrategy):
    """The rules of bindings of both kinds of policies."""

    def faults(self, obj: Any) -> Iterator[FieldError]:
        """Those of selectors."""
        return _binding_faults(obj)


class WebhookStrategy(_CheckedStrategy):
    """The rules of both kinds of webhook configurations."""

    def faults(self, obj: Any) -> Iterator[FieldError]:
        """Those of selectors, of how webhooks are reached, and of their conditions."""
        return _webhook_faults(obj)


def _match_faults(match: Any, path: str) -> Iterator[FieldError]:
    for name in ("namespaceSelector", "objectSelector"):
        if match.HasField(name):
            yield from validate_label_selector(getattr(match, name), f"{path}.{name}")


def _binding_faults(binding: Any) -> Iterator[FieldError]:
    spec = binding.spec
    yield from _match_faults(spec.matchResources, "spec.matchResources")
    if spec.paramRef.HasField("selector"):
        yield from validate_label_selector(spec.paramRef.selector, "spec.paramRef.selector")


def _mutation_faults(policy: Any) -> Iterator[FieldError]:
    spec = policy.spec
    rules = spec.matchConstraints.resourceRules
    if spec.HasField("matchConstraints") and not rules:
        yield FieldError.required("spec.matchConstraints.resourceRules")
    for index, rule in enumerate(rules):
        other = set(rule.ruleWithOperations.operations) - {"CREATE", "UPDATE"}
        if other:
            path = f"spec.matchConstraints.resourceRules[{index}].operations"
            yield FieldError.not_supported(path, min(other), ("CREATE", "UPDATE"))
    for index, mutation in enumerate(spec.mutations):
        path = f"spec.mutations[{index}]"
        for kind, member in (("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")):
            is_there = mutation.HasField(member)
            if mutation.patchType == kind and not is_there:
                yield FieldError.required(f"{path}.{member}", f"must be specified when patchType is {kind}")
            elif mutation.patchType != kind and is_there:
                yield FieldError.invalid(
                    f"{path}.{member}", "object", f"must not be specified when patchType is not {kind}"
                )
            elif is_there and not getattr(mutation, member).expression.strip():
                yield FieldError.required(f"{path}.{member}.expression")
            elif is_there:
                expression = getattr(mutation, member).expression
                yield from _faults(expression, f"{path}.{member}.expression", POLICY_VARIABLES, constructs=True)
    yield from _shared_faults(spec)


def _shared_faults(spec: Any) -> Iterator[FieldError]:
    """Of what policies of both kinds have."""
    yield from _match_faults(spec.matchConstraints, "spec.matchConstraints")
    for index, condition in enumerate(spec.matchConditions):
        yield from _faults(condition.expression, f"spec.matchConditions[{index}].expression", POLICY_VARIABLES)
    names: set[str] = set()
    for index, variable in enumerate(spec.variables):
        upper = "Name" in variable.DESCRIPTOR.fields_by_name
        name, expression = (variable.Name, variable.Expression) if upper else (variable.name, variable.expression)
        path = f"spec.variables[{index}]"
        if name in names:
            yield FieldError.duplicate(f"{path}.name", name)
        names.add(name)
        yield from _faults(expression, f"{path}.expression", POLICY_VARIABLES)


def _policy_faults(policy: Any) -> Iterator[FieldError]:
    spec = policy.spec
    if not spec.validations and not spec.auditAnnotations:
        yield FieldError.required("spec.validations", "validations or auditAnnotations must contain at least one item")
    for index, rule in enumerate(spec.validations):
        path = f"spec.validations[{index}]"
        yield from _faults(rule.Expression, f"{path}.expression", POLICY_VARIABLES)
        if rule.messageExpression:
            yield from _faults(rule.messageExpression, f"{path}.messageExpression", POLICY_VARIABLES)
    yield from _shared_faults(spec)


def _webhook_faults(configuration: Any) -> Iterator[FieldError]:
    names: set[str] = set()
    for index, hook in enumerate(configuration.Webhooks):
        path = f"webhooks[{index}]"
        if hook.name in names:
            yield FieldError.duplicate(f"{path}.name", hook.name)
        names.add(hook.name)
        if hook.name and hook.name.count(".") < 2:
            why = "should be a domain with at least three segments separated by dots"
            yield FieldError.invalid(f"{path}.name", hook.name, why)
        yield from _match_faults(hook, path)
        yield from endpoint_faults(hook.clientConfig, f"{path}.clientConfig")
        if "v1" not in hook.admissionReviewVersions:
            why = "must include at least one of v1"
            yield FieldError.invalid(f"{path}.admissionReviewVersions", list(hook.admissionReviewVersions), why)
        for place, condition in enumerate(hook.matchConditions):
            where = f"{path}.matchConditions[{place}].expression"
            yield from _faults(condition.expression, where, CONDITION_VARIABLES)


def _faults(expression: str, path: str, variables: Iterable[str], *, constructs: bool = False) -> Iterator[FieldError]:
    if not expression.strip():
        # That it is missing is the schema's finding.
        return
    try:
        compile_expression(expression, frozenset(variables), constructs=constructs)
    except CelError as err:
        yield FieldError.invalid(path, expression, str(err))
