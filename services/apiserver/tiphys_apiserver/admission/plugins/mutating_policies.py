"""Changes objects by MutatingAdmissionPolicies, one after the other, and again where later changes call for it.

Source: Kubernetes apiserver pkg/admission/plugin/policy/mutating.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from tiphys.api.admissionregistration.v1beta1.admissionregistration_pb2 import (
    MutatingAdmissionPolicy,
    MutatingAdmissionPolicyBinding,
)
from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.dynamic import DynamicObject
from tiphys_apimachinery.errors import APIError, Forbidden
from tiphys_apimachinery.patch.typed import Shape, shape_of
from tiphys_apimachinery.schema import descriptor_of
from tiphys_apiserver.admission.interface import AdmissionAttributes, MutatingPlugin
from tiphys_apiserver.admission.policies import mutation
from tiphys_apiserver.admission.policies.evaluation import (
    BoundPolicies,
    Evaluator,
    activation_of,
    meets_conditions,
    parameters,
)
from tiphys_apiserver.admission.policies.policy import Binding, Policy
from tiphys_apiserver.admission.policies.variables import POLICY_VARIABLES, namespace_object, variables_of
from tiphys_apiserver.admission.webhooks.hooks import is_exempt
from tiphys_apiserver.authorization.interface import Authorizer
from tiphys_apiserver.cel.expressions import compile_expression
from tiphys_apiserver.registry.objects import ObjectAccess

_INVALID = 422


class MutatingAdmissionPolicies:
    """Applies every bound policy that is about a write, by name."""

    name = "MutatingAdmissionPolicy"

    def __init__(self, objects: ObjectAccess, authorizer: Authorizer) -> None:
        self._objects = objects
        self._evaluator = Evaluator(authorizer)
        self._bound = BoundPolicies(objects, MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding)

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """Nothing where no policy is bound, or there is no object to be changed; else all but admission's own."""
        return not self._bound.is_empty() and attributes.object is not None and not is_exempt(attributes)

    async def admit(self, attributes: AdmissionAttributes) -> bool:
        """Change the object in place; whether it changed. Raises what a policy that fails does."""
        meant = await self._bound.about(attributes)
        changed_after: set[int] = set()
        changed = False
        for place, (policy, binding) in enumerate(meant):
            if await self._apply(policy, binding, attributes):
                changed = True
                changed_after.update(range(place))
        for place in sorted(changed_after):
            policy, binding = meant[place]
            if policy.again_if_needed:
                await self._apply(policy, binding, attributes)
        return changed

    async def admit_again(self, attributes: AdmissionAttributes) -> bool:
        """Apply those policies that ask for it once more, as others changed the object; whether it changed."""
        changed = False
        for policy, binding in await self._bound.about(attributes):
            if policy.again_if_needed:
                changed = await self._apply(policy, binding, attributes) or changed
        return changed

    async def _apply(self, policy: Policy, binding: Binding, attributes: AdmissionAttributes) -> bool:
        """Make the changes of one policy; whether there were any."""
        obj: Any = attributes.object
        before = type(obj)()
        before.CopyFrom(obj)
        try:
            for params in await parameters(self._objects, policy, binding, attributes):
                variables = variables_of(attributes) | {"namespaceObject": namespace_object(self._objects, attributes)}
                evaluate = partial(_mutated, policy, variables, params, _shape(obj))
                document = await self._evaluator.run(variables, evaluate)
                if document is not None:
                    obj.CopyFrom(_read(obj, document))
        except CelError as err:
            # Either all changes of a policy are made or none.
            obj.CopyFrom(before)
            if policy.fails_closed:
                raise _refusal(policy, binding, attributes, err) from err
            return False
        return bool(before != obj)


class ExtendedMutation:
    """Policies, then webhooks; and policies once more where webhooks changed what they had made."""

    name = "MutatingAdmissionWebhook"

    def __init__(self, policies: MutatingAdmissionPolicies, webhooks: MutatingPlugin) -> None:
        self._policies = policies
        self._webhooks = webhooks

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """What either of the two handles."""
        return self._policies.handles(attributes) or self._webhooks.handles(attributes)

    async def admit(self, attributes: AdmissionAttributes) -> bool:
        """Change the object in place; whether it changed."""
        with_policies = self._policies.handles(attributes)
        changed = await self._policies.admit(attributes) if with_policies else False
        if self._webhooks.handles(attributes) and await self._webhooks.admit(attributes):
            changed = True
            if with_policies:
                await self._policies.admit_again(attributes)
        return changed


def _mutated(policy: Policy, variables: Mapping[str, Any], params: Any, shape: Shape) -> Any:
    """The object as the policy makes it, as JSON; None where its conditions do not hold. Raises CelError."""
    seen = activation_of(policy, variables, params)
    if not meets_conditions(policy, seen):
        return None
    document = variables["object"]
    for change in policy.mutations:
        value = compile_expression(change.expression, POLICY_VARIABLES, constructs=True).evaluate(seen)
        document = mutation.merged(document, value, shape) if change.merges else mutation.patched(document, value)
        # Each sees what those before it made.
        seen = activation_of(policy, {**variables, "object": document}, params)
    return document


def _shape(obj: Any) -> Shape:
    if isinstance(obj, DynamicObject):
        return obj.KIND.schema.shape
    return shape_of(descriptor_of(type(obj)))


def _read(obj: Any, document: Any) -> Any:
    """The message in a changed document. Raises CelError for what its schema does not know."""
    sink = json_codec.FieldSink()
    try:
        made = json_codec.from_json(type(obj), document, sink)
    except APIError as err:
        raise CelError(str(err)) from err
    if sink.unknown:
        raise CelError(f".{sink.unknown[0]}: field not declared in schema")
    return made


def _refusal(policy: Policy, binding: Binding, attributes: AdmissionAttributes, err: CelError) -> APIError:
    info = attributes.resource
    told = f"policy '{policy.name}' with binding '{binding.name}' denied request: {err}"
    refused = Forbidden.of(info.plural, attributes.name or "Unknown", told, group=info.group)
    return APIError(refused.message, details=refused.details, code=_INVALID, reason="Invalid")
