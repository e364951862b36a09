"""What policies of both kinds have in common: which are bound to a write, their parameters and variables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message

from tiphys_apimachinery.cel.program import Activation
from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.scheme import load_default
from tiphys_apiserver.admission.interface import AdmissionAttributes
from tiphys_apiserver.admission.policies.policy import Binding, Policy, read_binding, read_policy
from tiphys_apiserver.admission.policies.variables import POLICY_VARIABLES, namespace_labels
from tiphys_apiserver.authorization.interface import Authorizer
from tiphys_apiserver.cel.aside import Aside
from tiphys_apiserver.cel.authorizer import AuthorizerValue, NotAsked
from tiphys_apiserver.cel.expressions import compile_expression
from tiphys_apiserver.registry.objects import ObjectAccess

T = TypeVar("T")


class BoundPolicies:
    """The policies of one kind with their bindings, read anew when one of either changed."""

    def __init__(self, objects: ObjectAccess, policies: type[Message], bindings: type[Message]) -> None:
        self._objects = objects
        self._policies = policies
        self._bindings = bindings
        self._seen = (-1, -1)
        self._bound: tuple[tuple[Policy, Binding], ...] = ()

    def _versions(self) -> tuple[int, int]:
        return self._objects.version(self._policies), self._objects.version(self._bindings)

    def is_empty(self) -> bool:
        """Whether nothing is bound for sure; cheap."""
        return not self._bound and self._versions() == self._seen

    async def about(self, attributes: AdmissionAttributes) -> list[tuple[Policy, Binding]]:
        """The policies that a write is meant by, by name."""
        pairs = await self._pairs()
        if not pairs:
            return []
        labels = namespace_labels(self._objects, attributes)
        return [
            (policy, binding)
            for policy, binding in pairs
            if policy.scope.matches(attributes, labels, all_if_empty=False)
            and (binding.scope is None or binding.scope.matches(attributes, labels, all_if_empty=True))
        ]

    async def _pairs(self) -> tuple[tuple[Policy, Binding], ...]:
        versions = self._versions()
        if not all(versions) or versions != self._seen:
            policies: list[Any] = await self._objects.list(self._policies)
            known = {obj.metadata.name: read_policy(obj) for obj in policies}
            bindings = [read_binding(obj) for obj in await self._objects.list(self._bindings)]
            found = ((known[item.policy], item) for item in bindings if item.policy in known)
            self._bound = tuple(sorted(found, key=lambda pair: (pair[0].name, pair[1].name)))
            self._seen = versions
        return self._bound


async def parameters(
    objects: ObjectAccess, policy: Policy, binding: Binding, attributes: AdmissionAttributes
) -> list[Any]:
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
            found = [await objects.get(info.message, wanted.name, namespace)]
        except NotFound:
            found = []
    elif wanted.selector is not None:
        found = list(await objects.list(info.message, namespace, label_selector=str(wanted.selector)))
    if not found and wanted.denies_if_missing:
        raise CelError(
            "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
        )
    return [json_codec.to_json(obj) for obj in found]


class Variables(dict[str, Any]):
    """`variables`: each computed when it is first asked for, so that an error is that of who uses it."""

    def __init__(self, policy: Policy, activation: Activation) -> None:
        super().__init__()
        self._expressions = dict(policy.variables)
        self._activation = activation

    def __contains__(self, name: object) -> bool:
        return name in self._expressions

    def __iter__(self) -> Iterator[str]:
        return iter(self._expressions)

    def __missing__(self, name: str) -> Any:
        if name not in self._expressions:
            raise CelError(f"no such key: {name}")
        program = compile_expression(self._expressions[name], POLICY_VARIABLES)
        self[name] = found = program.evaluate(self._activation)
        return found


def activation_of(policy: Policy, variables: Mapping[str, Any], params: Any) -> Activation:
    """What the expressions of a policy see, within one budget."""
    made = Activation({**variables, "params": params})
    # Variables are computed apart: who uses one within a loop must not lend it the loop's names.
    apart = Activation(made.variables, made.budget)
    found = Variables(policy, apart)
    for activation in (made, apart):
        activation.put("variables", found)
    return made


def meets_conditions(policy: Policy, seen: Activation) -> bool:
    """Whether all conditions of a policy are true. Raises CelError where one has no value and none is false."""
    broken: CelError | None = None
    for name, text in policy.conditions:
        try:
            if not compile_expression(text, POLICY_VARIABLES).is_true(seen):
                return False
        except CelError as err:
            broken = broken or CelError(f"match condition '{name}' resulted in error: {err}")
    if broken is not None:
        raise broken
    return True


class Evaluator:
    """Where the expressions of one admission plugin are evaluated, with the rights that they ask for."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer
        self._aside = Aside()

    async def run(self, variables: Mapping[str, Any], evaluate: Callable[[], T]) -> T:
        """What evaluate gives, which is called again when it takes long, and for each right that it asks for."""
        by: AuthorizerValue = variables["authorizer"]
        while True:
            try:
                return await self._aside.run(evaluate)
            except NotAsked as asked:
                by.answers[asked.question] = await self._authorizer.authorize(asked.attributes)
