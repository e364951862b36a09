"""Which rules an aggregated ClusterRole has; pure.

Source: kubernetes pkg/controller/clusterroleaggregation/clusterroleaggregation_controller.go.
"""

from __future__ import annotations

from collections.abc import Iterable

from tiphys.api.rbac.v1 import rbac_pb2
from tiphys_apimachinery.labels import Selector, SelectorError, from_label_selector


def is_aggregated(role: rbac_pb2.ClusterRole) -> bool:
    """Whether the role's rules are those of others."""
    return role.HasField("aggregationRule")


def rules_for(role: rbac_pb2.ClusterRole, roles: Iterable[rbac_pb2.ClusterRole]) -> list[rbac_pb2.PolicyRule]:
    """The rules of all roles that the selectors choose, by the names of these roles, each rule once."""
    selectors = list(_selectors(role))
    chosen = [
        other
        for other in roles
        if other.metadata.name != role.metadata.name
        and any(selector.matches(other.metadata.labels) for selector in selectors)
    ]
    found: dict[bytes, rbac_pb2.PolicyRule] = {}
    for other in sorted(chosen, key=lambda item: item.metadata.name):
        for rule in other.rules:
            found.setdefault(rule.SerializeToString(deterministic=True), rule)
    return list(found.values())


def _selectors(role: rbac_pb2.ClusterRole) -> Iterable[Selector]:
    for selector in role.aggregationRule.clusterRoleSelectors:
        try:
            yield from_label_selector(selector)
        except SelectorError:
            continue
