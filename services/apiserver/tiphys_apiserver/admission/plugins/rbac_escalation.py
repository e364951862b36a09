"""Nobody hands out by a role or binding what they do not hold."""

from __future__ import annotations

from typing import Any

from tiphys.api.rbac.v1.rbac_pb2 import ClusterRole, Role
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.admission.refusal import refuse
from tiphys_apiserver.authorization.escalation import FULL_AUTHORITY, RBAC_GROUP, EscalationCheck
from tiphys_apiserver.authorization.rules import PolicyRule
from tiphys_apiserver.registry.objects import ObjectAccess

_ROLES = frozenset({"roles", "clusterroles"})
_BINDINGS = frozenset({"rolebindings", "clusterrolebindings"})


class RBACEscalation:
    """Judges writes of roles and bindings; changes of labels and other metadata alone pass."""

    name = "RBACEscalation"

    def __init__(self, objects: ObjectAccess, check: EscalationCheck) -> None:
        self._objects = objects
        self._check = check

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """Creates and updates of RBAC's four kinds."""
        return (
            attributes.resource.group == RBAC_GROUP
            and attributes.resource.plural in _ROLES | _BINDINGS
            and attributes.operation in (Operation.CREATE, Operation.UPDATE)
        )

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Raises Forbidden, and NotFound for a binding to a role that is missing."""
        if attributes.resource.plural in _ROLES:
            await self._role(attributes)
        else:
            await self._binding(attributes)

    async def _role(self, attributes: AdmissionAttributes) -> None:
        new: Any = attributes.object
        old: Any = attributes.old_object
        aggregates = new.DESCRIPTOR.name == "ClusterRole" and new.HasField("aggregationRule")
        same_rules = old is not None and list(old.rules) == list(new.rules)
        if same_rules and (
            not aggregates or (old.HasField("aggregationRule") and old.aggregationRule == new.aggregationRule)
        ):
            return
        user, namespace = attributes.user, attributes.namespace
        name = attributes.name or new.metadata.name
        if await self._check.may_escalate(user, attributes.resource.plural, namespace, name):
            return
        refusal = await self._check.refusal(user, namespace, [PolicyRule.from_message(rule) for rule in new.rules])
        if not refusal and aggregates:
            # What an aggregated role will hold is anything, so its author must hold everything.
            missing = await self._check.refusal(user, "", FULL_AUTHORITY)
            refusal = f"must have cluster-admin privileges to use the aggregationRule: {missing}" if missing else ""
        if refusal:
            raise refuse(attributes, refusal)

    async def _binding(self, attributes: AdmissionAttributes) -> None:
        new: Any = attributes.object
        old: Any = attributes.old_object
        if old is not None and old.roleRef == new.roleRef and list(old.subjects) == list(new.subjects):
            return
        user, namespace, reference = attributes.user, attributes.namespace, new.roleRef
        if await self._check.may_bind(user, reference.kind, namespace, reference.name):
            return
        refusal = await self._check.refusal(user, namespace, await self._rules_of(reference, namespace))
        if refusal:
            raise refuse(attributes, refusal)

    async def _rules_of(self, reference: Any, namespace: str) -> list[PolicyRule]:
        """The rules of the role named. Raises NotFound."""
        role: Any
        if reference.kind == "Role":
            role = await self._objects.get(Role, reference.name, namespace)
        else:
            role = await self._objects.get(ClusterRole, reference.name)
        return [PolicyRule.from_message(rule) for rule in role.rules]
