"""Holds writes to ValidatingAdmissionPolicies, as their bindings say: refuses, warns.

Source: Kubernetes apiserver pkg/admission/plugin/policy/validating.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from tiphys.api.admissionregistration.v1.admissionregistration_pb2 import (
    ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
)
from tiphys_apimachinery.cel.program import Activation
from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.errors import APIError, Forbidden
from tiphys_apiserver.admission.interface import AdmissionAttributes
from tiphys_apiserver.admission.policies.evaluation import (
    BoundPolicies,
    Evaluator,
    activation_of,
    meets_conditions,
    parameters,
)
from tiphys_apiserver.admission.policies.policy import Binding, Policy, Validation
from tiphys_apiserver.admission.policies.variables import POLICY_VARIABLES, namespace_object, variables_of
from tiphys_apiserver.admission.webhooks.hooks import is_exempt
from tiphys_apiserver.authorization.interface import Authorizer
from tiphys_apiserver.cel.expressions import compile_expression
from tiphys_apiserver.registry.objects import ObjectAccess

DENY, WARN = "Deny", "Warn"
_CODES: Mapping[str, int] = {"Unauthorized": 401, "Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}


@dataclass(frozen=True, slots=True)
class _Fault:
    message: str
    reason: str = "Invalid"


class ValidatingAdmissionPolicies:
    """Evaluates every bound policy that is about a write."""

    name = "ValidatingAdmissionPolicy"

    def __init__(self, objects: ObjectAccess, authorizer: Authorizer) -> None:
        self._objects = objects
        self._evaluator = Evaluator(authorizer)
        self._bound = BoundPolicies(objects, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding)

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """Nothing where no policy is bound; else all but admission's own objects and reviews."""
        return not self._bound.is_empty() and not is_exempt(attributes)

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Raises what the first policy that is broken says; warns for those that only warn."""
        meant = await self._bound.about(attributes)
        if not meant:
            return
        variables = variables_of(attributes) | {"namespaceObject": namespace_object(self._objects, attributes)}
        for policy, binding in meant:
            for fault in await self._faults(policy, binding, attributes, variables):
                self._act(policy, binding, attributes, fault)

    async def _faults(
        self, policy: Policy, binding: Binding, attributes: AdmissionAttributes, variables: Mapping[str, Any]
    ) -> list[_Fault]:
        """What the policy finds, with each object of parameters in turn."""
        try:
            found = await parameters(self._objects, policy, binding, attributes)
        except CelError as err:
            return [_Fault(str(err))] if policy.fails_closed else []
        faults: list[_Fault] = []
        for params in found:
            evaluate = partial(_evaluate, policy, variables, params)
            faults += await self._evaluator.run(variables, evaluate)
        return faults

    @staticmethod
    def _act(policy: Policy, binding: Binding, attributes: AdmissionAttributes, fault: _Fault) -> None:
        who = f"ValidatingAdmissionPolicy '{policy.name}' with binding '{binding.name}'"
        if WARN in binding.actions:
            attributes.warn(f"Validation failed for {who}: {fault.message}")
        if DENY in binding.actions:
            info = attributes.resource
            refused = Forbidden.of(
                info.plural, attributes.name or "Unknown", f"{who} denied request: {fault.message}", group=info.group
            )
            reason = fault.reason if fault.reason in _CODES else "Invalid"
            raise APIError(refused.message, details=refused.details, code=_CODES[reason], reason=reason)


def _evaluate(policy: Policy, variables: Mapping[str, Any], params: Any) -> list[_Fault]:
    """The faults of one policy, in its order; none where its conditions do not hold."""
    seen = activation_of(policy, variables, params)
    try:
        if not meets_conditions(policy, seen):
            return []
    except CelError as err:
        return [_Fault(str(err))] if policy.fails_closed else []
    return list(_validate(policy, seen))


def _validate(policy: Policy, seen: Activation) -> Iterator[_Fault]:
    for rule in policy.validations:
        try:
            if compile_expression(rule.expression, POLICY_VARIABLES).is_true(seen):
                continue
        except CelError as err:
            if policy.fails_closed:
                yield _Fault(f"expression '{rule.expression}' resulted in error: {err}")
            continue
        yield _Fault(_message(rule, seen), rule.reason or "Invalid")


def _message(rule: Validation, seen: Activation) -> str:
    if rule.message_expression:
        try:
            told = compile_expression(rule.message_expression, POLICY_VARIABLES).evaluate(seen)
            if isinstance(told, str) and told.strip() and "\n" not in told:
                return told.strip()
        except CelError:
            # The rule is broken all the same: its plain message tells so.
            return rule.message or f"failed expression: {rule.expression.strip()}"
    return rule.message or f"failed expression: {rule.expression.strip()}"
