"""The RBAC authorizer: questions answered from a compiled index that follows the watch caches."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from tiphys.api.rbac.v1.rbac_pb2 import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from tiphys_apiserver.authentication.interface import UserInfo
from tiphys_apiserver.authorization.interface import (
    Attributes,
    Decision,
    NonResourceRule,
    ResourceRule,
    Rules,
    Verdict,
)
from tiphys_apiserver.authorization.policy_index import (
    Binding,
    PolicyIndex,
    Scope,
    binding_from_message,
    build_index,
    role_from_message,
)
from tiphys_apiserver.authorization.policy_index import Role as IndexedRole
from tiphys_apiserver.authorization.rules import PolicyRule
from tiphys_apiserver.registry.objects import ObjectAccess

T = TypeVar("T")
Compiled = dict[str, tuple[int, T]]

_NO_OPINION = Decision(Verdict.NO_OPINION)
# Answers remembered between two changes of policy; at this many all are dropped, which costs one slow
# question (some 50 µs) each.
_MEMO_SIZE = 50_000


class RBACAuthorizer:
    """Allows what roles and bindings grant; never denies.

    A question costs a few µs: the scope of (user, groups, verb, kind, namespace) is remembered until the next change
    of any role or binding. A change is seen at the next question, since the caches' versions are compared each time.
    """

    def __init__(self, objects: ObjectAccess) -> None:
        self._objects = objects
        self._index = PolicyIndex()
        # The versions that _index and _memo were made from.
        self._versions = (-1, -1, -1, -1)
        self._memo: dict[tuple[object, ...], Scope] = {}
        # Compiled objects of the cluster and of namespaces, so that a change costs parsing of what changed only.
        self._roles: tuple[Compiled[IndexedRole], Compiled[IndexedRole]] = ({}, {})
        self._bindings: tuple[Compiled[Binding], Compiled[Binding]] = ({}, {})
        self._building = asyncio.Lock()

    async def authorize(self, attributes: Attributes) -> Decision:
        """Allow what a binding allows; the reason names the binding."""
        await self._refresh()
        user = attributes.user
        key = (
            user.name,
            user.groups,
            attributes.verb,
            attributes.resource if attributes.is_resource_request else attributes.path,
            attributes.subresource,
            attributes.api_group,
            attributes.namespace,
            attributes.is_resource_request,
        )
        scope = self._memo.get(key)
        if scope is None:
            if len(self._memo) >= _MEMO_SIZE:
                self._memo.clear()
            scope = self._memo[key] = self._index.question_scope(attributes)
        binding = scope.binding_for(attributes.name)
        if binding is None:
            return _NO_OPINION
        return Decision(Verdict.ALLOW, f"RBAC: allowed by {binding.described}")

    async def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        """The user's rules in the namespace, cluster-wide ones included."""
        resources: list[ResourceRule] = []
        urls: list[NonResourceRule] = []
        for rule in await self.policy_rules(user, namespace):
            if rule.resources:
                resources.append(ResourceRule(rule.verbs, rule.api_groups, rule.resources, rule.resource_names))
            if rule.non_resource_urls:
                urls.append(NonResourceRule(rule.verbs, rule.non_resource_urls))
        return Rules(tuple(resources), tuple(urls))

    async def policy_rules(self, user: UserInfo, namespace: str) -> list[PolicyRule]:
        """The same as plain rules, for the check of escalation."""
        await self._refresh()
        return self._index.rules(user, namespace)

    async def _refresh(self) -> None:
        if self._current_versions() == self._versions:
            return
        async with self._building:
            # Another question may have rebuilt it meanwhile; and it may change again while the lists are read,
            # so the versions are those from before the reading.
            versions = self._current_versions()
            if versions == self._versions:
                return
            project = self._objects.project
            roles = [
                *await project(ClusterRole, role_from_message, self._roles[0]),
                *await project(Role, role_from_message, self._roles[1]),
            ]
            bindings = [
                *await project(ClusterRoleBinding, binding_from_message, self._bindings[0]),
                *await project(RoleBinding, binding_from_message, self._bindings[1]),
            ]
            self._index = build_index(roles, bindings)
            self._memo = {}
            self._versions = versions

    def _current_versions(self) -> tuple[int, int, int, int]:
        version = self._objects.version
        return (version(ClusterRole), version(Role), version(ClusterRoleBinding), version(RoleBinding))
