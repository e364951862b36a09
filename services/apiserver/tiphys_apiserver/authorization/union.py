"""Asks several authorizers in order, and lists what several of them know."""

from __future__ import annotations

from collections.abc import Sequence

from tiphys_apiserver.authentication.interface import MASTERS, UserInfo
from tiphys_apiserver.authorization.interface import (
    Attributes,
    Authorizer,
    Decision,
    NonResourceRule,
    ResourceRule,
    RuleResolver,
    Rules,
    Verdict,
)

_ALLOW = Decision(Verdict.ALLOW)
_ALL_RULES = Rules((ResourceRule(("*",), ("*",), ("*",)),), (NonResourceRule(("*",), ("*",)),))


class AlwaysAllow:
    """Allows everything: for tests and for servers that stand alone."""

    async def authorize(self, attributes: Attributes) -> Decision:
        """Yes."""
        return _ALLOW

    async def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        """Everything."""
        return _ALL_RULES


class PrivilegedGroups:
    """Allows everything to members of groups that no policy may lock out (system:masters)."""

    def __init__(self, *groups: str) -> None:
        self._groups = frozenset(groups or (MASTERS,))

    async def authorize(self, attributes: Attributes) -> Decision:
        """Yes to members, no opinion on others."""
        if self._groups.isdisjoint(attributes.user.groups):
            return Decision(Verdict.NO_OPINION)
        return _ALLOW

    async def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        """Everything for members."""
        return Rules() if self._groups.isdisjoint(user.groups) else _ALL_RULES


class UnionAuthorizer:
    """The first ALLOW or DENY wins; if there is none, NO_OPINION with all reasons given."""

    def __init__(self, *authorizers: Authorizer) -> None:
        self._authorizers = authorizers

    async def authorize(self, attributes: Attributes) -> Decision:
        """Ask each in order."""
        reasons = []
        for authorizer in self._authorizers:
            decision = await authorizer.authorize(attributes)
            if decision.verdict is not Verdict.NO_OPINION:
                return decision
            if decision.reason:
                reasons.append(decision.reason)
        return Decision(Verdict.NO_OPINION, ", ".join(reasons))


class UnionRuleResolver:
    """All that several resolvers know."""

    def __init__(self, resolvers: Sequence[RuleResolver]) -> None:
        self._resolvers = resolvers

    async def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        """Ask each in order and join the answers."""
        resource_rules: list[ResourceRule] = []
        non_resource_rules: list[NonResourceRule] = []
        errors = []
        incomplete = False
        for resolver in self._resolvers:
            rules = await resolver.rules_for(user, namespace)
            resource_rules.extend(rules.resource_rules)
            non_resource_rules.extend(rules.non_resource_rules)
            incomplete = incomplete or rules.incomplete
            if rules.evaluation_error:
                errors.append(rules.evaluation_error)
        return Rules(tuple(resource_rules), tuple(non_resource_rules), incomplete, ", ".join(errors))
