"""Whether a user may write a role or a binding: nobody hands out more than they hold."""

from __future__ import annotations

from collections.abc import Iterable

from tiphys_apiserver.authentication.interface import MASTERS, UserInfo
from tiphys_apiserver.authorization.interface import Attributes, Authorizer
from tiphys_apiserver.authorization.rbac import RBACAuthorizer
from tiphys_apiserver.authorization.rules import PolicyRule, compact, uncovered

RBAC_GROUP = "rbac.authorization.k8s.io"
FULL_AUTHORITY = (
    PolicyRule(("*",), ("*",), ("*",)),
    PolicyRule(("*",), non_resource_urls=("*",)),
)


class EscalationCheck:
    """Compares what would be granted with what the giver holds."""

    def __init__(self, rbac: RBACAuthorizer, authorizer: Authorizer) -> None:
        self._rbac = rbac
        self._authorizer = authorizer

    async def may_escalate(self, user: UserInfo, resource: str, namespace: str, name: str) -> bool:
        """Whether the user is a master or holds the verb escalate on this role."""
        return MASTERS in user.groups or await self._holds(user, "escalate", resource, namespace=namespace, name=name)

    async def may_bind(self, user: UserInfo, role_kind: str, namespace: str, role_name: str) -> bool:
        """Whether the user is a master or holds the verb bind on the role; namespace is that of the binding."""
        if MASTERS in user.groups:
            return True
        resource = "roles" if role_kind == "Role" else "clusterroles"
        return await self._holds(user, "bind", resource, namespace=namespace, name=role_name)

    async def refusal(self, user: UserInfo, namespace: str, wanted: Iterable[PolicyRule]) -> str:
        """Why the user may not grant the rules in the namespace, in Kubernetes' words; "" where they may."""
        held = await self._rbac.policy_rules(user, namespace)
        missing = uncovered(held, wanted)
        if not missing:
            return ""
        lines = sorted({rule.describe() for rule in compact(missing)})
        groups = " ".join(f'"{group}"' for group in user.groups)
        return (
            f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n'
            + "\n".join(lines)
        )

    async def _holds(self, user: UserInfo, verb: str, resource: str, *, namespace: str, name: str) -> bool:
        decision = await self._authorizer.authorize(
            Attributes(
                user,
                verb,
                True,
                api_group=RBAC_GROUP,
                api_version="*",
                resource=resource,
                namespace=namespace,
                name=name,
            )
        )
        return decision.allowed
