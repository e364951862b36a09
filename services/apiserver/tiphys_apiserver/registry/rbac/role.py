"""Roles and cluster roles."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery import validation
from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.core.scheduling_validation import validate_label_selector
from tiphys_apiserver.registry.strategy import Strategy, WriteContext


class RoleStrategy(Strategy):
    """Serves both kinds; names may have colons."""

    def validate_name(self, name: str) -> list[str]:
        """Any text that can be one part of a path."""
        return validation.is_path_segment(name)

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of the rules."""
        return super().validate(ctx, obj) + rule_errors(obj, namespaced=self.resource.namespaced)

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same for changed rules."""
        return super().validate_update(ctx, new, old) + rule_errors(new, namespaced=self.resource.namespaced)


def rule_errors(role: Any, *, namespaced: bool) -> list[FieldError]:
    """Faults of a role's rules."""
    errors: list[FieldError] = []
    for index, rule in enumerate(role.rules):
        path = f"rules[{index}]"
        if not rule.verbs:
            errors.append(FieldError.required(f"{path}.verbs", "verbs must contain at least one value"))
        if rule.nonResourceURLs:
            if namespaced:
                errors.append(
                    FieldError.invalid(
                        f"{path}.nonResourceURLs",
                        list(rule.nonResourceURLs),
                        "namespaced rules cannot apply to non-resource URLs",
                    )
                )
            if rule.apiGroups or rule.resources or rule.resourceNames:
                errors.append(
                    FieldError.invalid(
                        f"{path}.nonResourceURLs",
                        list(rule.nonResourceURLs),
                        "rules cannot apply to both regular resources and non-resource URLs",
                    )
                )
            continue
        if not rule.apiGroups:
            errors.append(FieldError.required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.resources:
            errors.append(FieldError.required(f"{path}.resources", "resource rules must supply at least one resource"))
    if not namespaced and role.HasField("aggregationRule"):
        where = "aggregationRule.clusterRoleSelectors"
        if not role.aggregationRule.clusterRoleSelectors:
            errors.append(
                FieldError.required(where, "at least one clusterRoleSelector required if aggregationRule is non-nil")
            )
        for index, selector in enumerate(role.aggregationRule.clusterRoleSelectors):
            errors += validate_label_selector(selector, f"{where}[{index}]")
    return errors
