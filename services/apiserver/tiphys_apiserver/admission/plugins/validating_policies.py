"""Holds writes to ValidatingAdmissionPolicies, as their bindings say: refuses, warns.

Source: Kubernetes apiserver pkg/admission/plugin/policy/validating.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tiphys.api.admissionregistration.v1.admissionregistration_pb2 import (
    ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
)
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.errors import APIError, Forbidden, NotFound
from tiphys_apimachinery.scheme import load_default
from tiphys_apiserver.admission.interface import AdmissionAttributes
from tiphys_apiserver.admission.policies.policy import Binding, Policy, Validation, read_binding, read_policy
from tiphys_apiserver.admission.policies.variables import (
    POLICY_VARIABLES,
    namespace_labels,
    namespace_object,
    variables_of,
)
from tiphys_apiserver.admission.webhooks.hooks import is_exempt
from tiphys_apiserver.cel.program import Activation, compile_expression
from tiphys_apiserver.cel.syntax import CelError
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

    def __init__(self, objects: ObjectAccess) -> None:
        self._objects = objects
        self._seen = (-1, -1)
        self._bound: tuple[tuple[Policy, Binding], ...] = ()

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """Nothing where no policy is bound; else all but admission's own objects and reviews."""
        return not (self._versions() == self._seen and not self._bound) and not is_exempt(attributes)

    def _versions(self) -> tuple[int, int]:
        return (
            self._objects.version(ValidatingAdmissionPolicy),
            self._objects.version(ValidatingAdmissionPolicyBinding),
        )

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Raises what the first policy that is broken says; warns for those that only warn."""
        labels = namespace_labels(self._objects, attributes)
        meant = [
            (policy, binding)
            for policy, binding in await self._pairs()
            if policy.scope.matches(attributes, labels, all_if_empty=False)
            and (binding.scope is None or binding.scope.matches(attributes, labels, all_if_empty=True))
        ]
        if not meant:
            return
        variables = variables_of(attributes) | {"namespaceObject": namespace_object(self._objects, attributes)}
        for policy, binding in meant:
            for fault in await self._faults(policy, binding, attributes, variables):
                self._act(policy, binding, attributes, fault)

    async def _pairs(self) -> tuple[tuple[Policy, Binding], ...]:
        versions = self._versions()
        if not all(versions) or versions != self._seen:
            policies = {obj.metadata.name: obj for obj in await self._objects.list(ValidatingAdmissionPolicy)}
            known = {name: read_policy(obj) for name, obj in policies.items()}
            bindings = [read_binding(obj) for obj in await self._objects.list(ValidatingAdmissionPolicyBinding)]
            self._bound = tuple((known[item.policy], item) for item in bindings if item.policy in known)
            self._seen = versions
        return self._bound

    async def _faults(
        self, policy: Policy, binding: Binding, attributes: AdmissionAttributes, variables: Mapping[str, Any]
    ) -> list[_Fault]:
        """What the policy finds, with each object of parameters in turn."""
        try:
            found = await self._parameters(policy, binding, attributes)
        except CelError as err:
            return [_Fault(str(err))] if policy.fails_closed else []
        faults: list[_Fault] = []
        for params in found:
            faults += _evaluate(policy, Activation({**variables, "params": params, "variables": {}}))
        return faults

    async def _parameters(self, policy: Policy, binding: Binding, attributes: AdmissionAttributes) -> list[Any]:
        """The objects of parameters as JSON; [None] for a policy without. Raises CelError where they are missing."""
        if policy.param_kind is None or binding.parameters is None:
            return [None]
        wanted = binding.parameters
        api_version, kind = policy.param_kind
        info = load_default().by_kind(api_version, kind)
        if info is None:
            raise CelError(f"failed to configure policy: no kind {kind} in {api_version}")
        namespace = (wanted.namespace or attributes.namespace) if info.namespaced else ""
        found: list[Any] = []
        if wanted.name:
            try:
                found = [await self._objects.get(info.message, wanted.name, namespace)]
            except NotFound:
                found = []
        elif wanted.selector is not None:
            found = list(await self._objects.list(info.message, namespace, label_selector=str(wanted.selector)))
        if not found and wanted.denies_if_missing:
            raise CelError(
                "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
            )
        return [json_codec.to_json(obj) for obj in found]

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


def _evaluate(policy: Policy, seen: Activation) -> list[_Fault]:
    """The faults of one policy, in its order; none where its conditions do not hold."""
    try:
        if not all(compile_expression(text, POLICY_VARIABLES).is_true(seen) for _, text in policy.conditions):
            return []
    except CelError as err:
        return [_Fault(f"match condition resulted in error: {err}")] if policy.fails_closed else []
    _put_variables(policy, seen)
    return list(_validate(policy, seen))


def _put_variables(policy: Policy, seen: Activation) -> None:
    """Compute the policy's variables in order; one that has no value is left out, and missed by those that use it."""
    values: dict[str, Any] = {}
    for name, expression in policy.variables:
        try:
            values[name] = compile_expression(expression, POLICY_VARIABLES).evaluate(seen)
        except CelError:
            # Upstream computes variables only where they are used: the error is that of the use.
            continue
        seen.put("variables", values)


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
